package conformance

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	debugv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/debug/v1"
	delegatedv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func agentAdminSocket(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{Agent: AdminLine})
	hasMode(t, agent.AdminSocket(), 0o770)
	_, err := debugv1.NewDebugClient(agent.Admin(t)).GetInfo(Context(t), &debugv1.GetInfoRequest{})
	Must(t, err)
	without := StartAgent(t, server, AgentSettings{})
	_, err = os.Stat(without.AdminSocket())
	True(t, "there is none unless it is asked for", os.IsNotExist(err))
	for _, path := range []string{"{DIR}/p/admin.sock", "{DIR}/p/below/admin.sock", "{DIR}/x/../p/admin.sock"} {
		invalid(t, AgentSettings{Agent: fmt.Sprintf("admin_socket_path = %q", path)}, "admin_socket_path")
	}
	// Where there is no public socket it is in nobody's reach.
	valid(t, AgentSettings{Agent: "admin_socket_path = \"{DIR}/p/admin.sock\"\ndisable_workload_api = true\ndisable_sds_api = true"})
}

func sdsFetchOne(t *testing.T, agent *AgentProcess, name string) (*tlsv3.Secret, error) {
	t.Helper()
	answer, err := sdsOf(t, agent).FetchSecrets(Context(t), &discovery.DiscoveryRequest{TypeUrl: secretType, ResourceNames: []string{name}})
	if err != nil {
		return nil, err
	}
	_, found := secretsIn(t, answer.Resources)
	return found[name], nil
}

func agentWithoutWorkloadAPI(t *testing.T) {
	validated(t, "", `disable_workload_api = "perhaps"`, "disable_workload_api")
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{Agent: "disable_workload_api = true"})
	for name, call := range workloadCalls(t, agent) {
		t.Run(name, func(t *testing.T) { Refused(t, call(AsWorkload(t)), codes.Unimplemented) })
	}
	_, err := sdsFetchOne(t, agent, "ROOTCA")
	Must(t, err)

	// Without both there is no socket.
	neither := PrepareAgent(t, server, AgentSettings{Agent: AdminLine})
	neither.Spawn(t, "-disableWorkloadAPI", "-disableSDSAPI")
	client := debugv1.NewDebugClient(neither.Admin(t))
	Eventually(t, "the agent is in step", func() bool {
		info, err := client.GetInfo(Context(t), &debugv1.GetInfoRequest{})
		return err == nil && info.LastSyncSuccess > 0
	})
	_, err = os.Stat(neither.Socket)
	True(t, "there is no public socket", os.IsNotExist(err))
}

func agentWithoutSDS(t *testing.T) {
	validated(t, "", `disable_sds_api = "perhaps"`, "disable_sds_api")
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: "disable_sds_api = true"})
	_, err := sdsFetchOne(t, agent, "ROOTCA")
	Refused(t, err, codes.Unimplemented)
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
}

func agentSDSNames(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{
		Agent: `sds { default_svid_name = "me" default_bundle_name = "mine" default_all_bundles_name = "ours" }`,
	})
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	secret, err := sdsFetchOne(t, agent, "me")
	Must(t, err)
	True(t, "the default identity has that name", secret.GetTlsCertificate() != nil)
	for _, name := range []string{"mine", "ours"} {
		secret, err = sdsFetchOne(t, agent, name)
		Must(t, err)
		Equal(t, name, spiffeDomains(t, secret), []string{"example.org"})
	}
	for _, name := range []string{"default", "ROOTCA", "ALL"} {
		_, err = sdsFetchOne(t, agent, name)
		Refused(t, err, codes.InvalidArgument, name)
	}
	plain := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: `sds { disable_spiffe_cert_validation = true }`})
	secret, err = sdsFetchOne(t, plain, "ROOTCA")
	Must(t, err)
	True(t, "plain authorities", secret.GetValidationContext().GetTrustedCa() != nil)
}

// serveBundle serves a file over HTTPS and returns the address, and the certificate as PEM.
func serveBundle(t *testing.T, path string) (url, certificate string) {
	t.Helper()
	key := NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	Must(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	Must(t, err)
	service := &http.Server{Handler: http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		http.ServeFile(writer, request, path)
	})}
	go func() { _ = service.Serve(listener) }()
	t.Cleanup(func() { _ = service.Close() })
	return fmt.Sprintf("https://%s/bundle", listener.Addr()), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func agentBundleURL(t *testing.T) {
	server := Start(t, Settings{})
	file := server.WriteFile(t, "bundle.pem", server.Run(t, "bundle", "show").Succeeds(t).Out)
	url, certificate := serveBundle(t, file)
	settings := AgentSettings{Trust: fmt.Sprintf("trust_bundle_url = %q", url)}
	roots := server.WriteFile(t, "roots.pem", certificate)
	agent := PrepareAgent(t, server, settings)
	agent.Environment = []string{"SSL_CERT_FILE=" + roots}
	agent.Boot(t)
	stranger := PrepareAgent(t, server, settings)
	stranger.Spawn(t)
	if !StockAgent() {
		// SPIRE says it in other words.
		stranger.AwaitLog(t, "attestation failed")
	}
	trusted(t, `trust_bundle_url = "http://127.0.0.1:1/b"`, "https://")
	trusted(t, `trust_bundle_url = "https://127.0.0.1:1/b" trust_bundle_path = "{DIR}/bundle.pem"`, "trust_bundle_url")
}

// attestsAgain is an agent that proves its node with a certificate, to a server that keeps nothing over a restart.
func attestsAgain(t *testing.T, lines string) (*Server, Settings, *AgentProcess) {
	settings := Settings{BindPort: fmt.Sprint(freePort(t)), Server: "ratelimit { attestation = false }"}
	server := Prepare(t, settings)
	node := newNode(t, server)
	settings.Plugins = fmt.Sprintf(`NodeAttestor "x509pop" { plugin_data { ca_bundle_path = %q } }`, node.bundle)
	server.WriteConfig(t, settings)
	server.Boot(t)
	agent := PrepareAgent(t, server, AgentSettings{WithoutToken: true, Agent: lines, Node: node.block(t, server)})
	return server, settings, agent
}

// block writes certificate and key of a node, and returns the agent's block for them.
func (n *node) block(t *testing.T, server *Server) string {
	t.Helper()
	return fmt.Sprintf("NodeAttestor \"x509pop\" { plugin_data {\n%s\n} }", n.data(t, server))
}

func (n *node) data(t *testing.T, server *Server) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(n.key)
	Must(t, err)
	write := func(kind string, der []byte) string {
		return server.WriteFile(t, n.fingerprint+"-"+strings.ToLower(kind[:4]), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	return fmt.Sprintf("certificate_path = %q\nprivate_key_path = %q", write("CERTIFICATE", n.der), write("PRIVATE KEY", key))
}

func agentRebootstrap(t *testing.T) {
	validated(t, "", `rebootstrap_mode = "sometimes"`, "rebootstrap")
	validated(t, "", `rebootstrap_delay = "soon"`, "rebootstrap")
	trusted(t, `insecure_bootstrap = true rebootstrap_mode = "always"`, "insecure_bootstrap")

	// A node that cannot attest again cannot begin anew.
	once := PrepareAgent(t, Start(t, Settings{}), AgentSettings{Agent: `rebootstrap_mode = "always"`})
	once.Spawn(t)
	once.AwaitEnd(t)
	StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: `rebootstrap_mode = "auto"`})

	server, settings, agent := attestsAgain(t, "rebootstrap_mode = \"always\"\nrebootstrap_delay = \"1s\"")
	agent.Boot(t)
	server.Stop()
	server.WriteConfig(t, settings)
	server.Boot(t)
	agent.WriteFile(t, "bundle.pem", server.Run(t, "bundle", "show").Succeeds(t).Out)
	// It is another server by its keys, and has never heard of the agent.
	var id string
	Eventually(t, "the agent is there again", func() bool {
		if StockAgent() && agent.HasEnded() {
			// SPIRE's leaves the rest to whoever starts it.
			agent.Spawn(t)
		}
		id, _ = At(server.Run(t, "agent", "list", "-output", "json").JSON(t), "agents", 0, "id", "path").(string)
		return id != ""
	})
	server.Run(t, "entry", "create", "-parentID", "spiffe://example.org"+id, "-spiffeID", "spiffe://example.org/new",
		"-selector", fmt.Sprintf("unix:uid:%d", os.Getuid())).Succeeds(t)
	agent.AwaitFetch(t, "/new")
}

func cached(t *testing.T, agent *AgentProcess) *debugv1.GetInfoResponse {
	t.Helper()
	info, err := debugv1.NewDebugClient(agent.Admin(t)).GetInfo(Context(t), &debugv1.GetInfoRequest{})
	Must(t, err)
	return info
}

func agentCacheSize(t *testing.T) {
	validated(t, `x509_svid_cache_max_size = 0`, `x509_svid_cache_max_size = -1`, "x509_svid_cache_max_size")
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{Agent: AdminLine + `x509_svid_cache_max_size = 1`})
	for _, path := range []string{"/x", "/y", "/z"} {
		agent.EntryFor(t, path, func(entry *types.Entry) { entry.Selectors = selectors("a:1") })
	}
	Eventually(t, "one that nobody asks for is kept ready", func() bool { return cached(t, agent).CachedX509SvidsCount == 1 })
	for _, path := range []string{"/a", "/b", "/c"} {
		agent.EntryFor(t, path, nil)
	}
	// The size is a soft one: who asks is given all.
	agent.AwaitFetch(t, "spiffe://example.org/a", "spiffe://example.org/b", "spiffe://example.org/c")
}

func agentJWTCacheSize(t *testing.T) {
	validated(t, `jwt_svid_cache_max_size = 0`, `jwt_svid_cache_max_size = -1`, "jwt_svid_cache_max_size")
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine + `jwt_svid_cache_max_size = 2`})
	agent.EntryFor(t, "/w", nil)
	agent.AwaitFetch(t, "/w")
	for _, audience := range []string{"a", "b", "c"} {
		_, err := agent.Workload(t).FetchJWTSVID(AsWorkload(t), &workload.JWTSVIDRequest{Audience: []string{audience}})
		Must(t, err)
	}
	Eventually(t, "no more than two are kept", func() bool { return cached(t, agent).CachedJwtSvidsCount == 2 })
}

func agentVerifiers(t *testing.T) {
	validated(t, "", `allow_unauthenticated_verifiers = "perhaps"`, "allow_unauthenticated_verifiers")
	server := Start(t, Settings{})
	setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{Agent: `allow_unauthenticated_verifiers = true`})
	agent.EntryFor(t, "/f", func(entry *types.Entry) {
		entry.Selectors, entry.FederatesWith = selectors("a:1"), []string{"other.example"}
	})
	api := agent.Workload(t)
	certificates, err := First(t, AsWorkload(t), api.FetchX509Bundles)
	Must(t, err)
	Equal(t, "the own bundle alone", slices.Collect(maps.Keys(certificates.Bundles)), []string{"spiffe://example.org"})
	keys, err := First(t, AsWorkload(t), api.FetchJWTBundles)
	Must(t, err)
	Equal(t, "the own keys alone", slices.Collect(maps.Keys(keys.Bundles)), []string{"spiffe://example.org"})
	_, err = First(t, AsWorkload(t), api.FetchX509SVID)
	Refused(t, err, codes.PermissionDenied, "no identity issued")
}

func agentForeignClaims(t *testing.T) {
	if !StockAgent() {
		invalid(t, AgentSettings{Agent: `allowed_foreign_jwt_claims { }`}, "allowed_foreign_jwt_claims")
	}
	server := Start(t, Settings{})
	other := Start(t, Settings{TrustDomain: "other.example", Server: `jwt_issuer = "https://other.example"`})
	agent := StartAgent(t, server, AgentSettings{Agent: `allowed_foreign_jwt_claims = ["iss"]`})
	federate(t, server, other)
	agent.EntryFor(t, "/w", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	agent.AwaitFetch(t, "/w")
	token := strings.TrimSpace(other.Run(t, "jwt", "mint", "-spiffeID", "spiffe://other.example/f", "-audience", "a").Succeeds(t).Out)
	answer, err := agent.Workload(t).ValidateJWTSVID(AsWorkload(t), &workload.ValidateJWTSVIDRequest{Audience: "a", Svid: token})
	Must(t, err)
	Equal(t, "the claims that are told", slices.Sorted(maps.Keys(answer.Claims.Fields)), []string{"aud", "exp", "iss", "sub"})
}

func agentDelegates(t *testing.T) {
	validated(t, "", `authorized_delegates = ["spiffe://other.example/d"]`, "delegate")
	server := Start(t, Settings{})
	for line, code := range map[string]codes.Code{
		"":                          codes.PermissionDenied,
		`authorized_delegates = []`: codes.PermissionDenied,
		`authorized_delegates = ["spiffe://example.org/x", "spiffe://example.org/d"]`: codes.OK,
	} {
		agent := StartAgent(t, server, AgentSettings{Agent: AdminLine + line})
		agent.EntryFor(t, "/d", nil)
		agent.AwaitFetch(t, "/d")
		ctx, cancel := context.WithCancel(Context(t))
		stream, err := delegatedv1.NewDelegatedIdentityClient(agent.Admin(t)).SubscribeToX509Bundles(ctx, &delegatedv1.SubscribeToX509BundlesRequest{})
		Must(t, err)
		_, err = stream.Recv()
		Refused(t, err, code)
		cancel()
		agent.Stop()
	}
}

func agentLog(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{Agent: "log_format = \"json\"\nlog_file = \"{DIR}/agent.log\"\nlog_source_location = true"})
	agent.Boot(t)
	text, err := os.ReadFile(filepath.Join(agent.Dir, "agent.log"))
	Must(t, err)
	for line := range strings.Lines(string(text)) {
		var record map[string]any
		Must(t, json.Unmarshal([]byte(line), &record))
		for _, key := range []string{"level", "msg", "time", "file"} {
			if record[key] == nil {
				t.Errorf("%s is missing: %s", key, line)
			}
		}
	}
	// In the other form the lines are on standard output, and only those that matter.
	quiet := StartAgent(t, server, AgentSettings{}, "-logLevel", "info", "-logFormat", "text")
	log := quiet.Log()
	True(t, "information is told", strings.Contains(log, "level=info") && strings.Contains(log, "msg="))
	True(t, "what is for debugging is not", !strings.Contains(log, "level=debug") && !strings.Contains(log, " file="))
	validated(t, "", `log_format = "xml"`, "")
	invalid(t, AgentSettings{Agent: `log_file = "{DIR}/none/agent.log"`}, "")
}

// keyExchanges are the groups that an agent offers to whoever it takes for its server.
func keyExchanges(t *testing.T, server *Server, lines string) []tls.CurveID {
	t.Helper()
	offered := make(chan []tls.CurveID, 100)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered <- hello.SupportedCurves
		return nil, errors.New("that is all")
	}})
	Must(t, err)
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	agent := PrepareAgent(t, server, AgentSettings{Agent: lines})
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	agent.Spawn(t, "-serverAddress", "127.0.0.1", "-serverPort", port)
	defer agent.Stop()
	return <-offered
}

func agentPostQuantum(t *testing.T) {
	server := Start(t, Settings{})
	StartAgent(t, server, AgentSettings{Agent: "experimental {\n require_pq_kem = true\n}"})
	for _, group := range keyExchanges(t, server, "experimental {\n require_pq_kem = true\n}") {
		True(t, fmt.Sprintf("%v withstands quantum computers", group), slices.Contains([]tls.CurveID{tls.X25519MLKEM768, 4587, 4589}, group))
	}
	groups := keyExchanges(t, server, "")
	True(t, "without the key both kinds are offered", slices.Contains(groups, tls.X25519MLKEM768) && slices.Contains(groups, tls.X25519))
}

// probe asks for a health path and returns the status, and what is said of the agent.
func probe(t *testing.T, port int, path string) (int, map[string]any) {
	t.Helper()
	answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return 0, nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	Must(t, err)
	var checks map[string]any
	_ = json.Unmarshal(body, &checks)
	return answer.StatusCode, checks
}

func agentHealthChecks(t *testing.T) {
	invalid(t, AgentSettings{Below: `health_checks { quux = 1 }`}, "")
	port := freePort(t)
	settings := Settings{BindPort: fmt.Sprint(freePort(t)), Store: `DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "{DIR}/d.sqlite3" } }`,
		Keys: `KeyManager "disk" { plugin_data { keys_path = "{DIR}/keys.json" } }`}
	server := Start(t, settings)
	agent := PrepareAgent(t, server, AgentSettings{Below: fmt.Sprintf(`health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = "%d" live_path = "/alive" ready_path = "/serves" }`, port)})
	server.Stop()
	agent.Spawn(t)
	Eventually(t, "a starting agent is alive and not ready", func() bool {
		alive, _ := probe(t, port, "/alive")
		serves, _ := probe(t, port, "/serves")
		return alive == http.StatusOK && serves == http.StatusInternalServerError
	})
	server.Boot(t)
	Eventually(t, "the agent is ready", func() bool {
		status, checks := probe(t, port, "/serves")
		return status == http.StatusOK && checks["agent"] != nil
	})
	status, _ := probe(t, port, "/ready")
	Equal(t, "a path that is not configured", status, http.StatusNotFound)
	unused := freePort(t)
	StartAgent(t, Start(t, Settings{}), AgentSettings{Below: fmt.Sprintf(`health_checks { bind_address = "127.0.0.1" bind_port = "%d" }`, unused)})
	status, _ = probe(t, unused, "/live")
	Equal(t, "without listener_enabled nobody answers", status, 0)
}
