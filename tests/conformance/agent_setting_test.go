package conformance

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-CFG-FORMAT", agentFormat)
	holds("AGENT-CFG-TRUST_DOMAIN", agentTrustDomain)
	holds("AGENT-CFG-SERVER_ADDRESS", agentServerAddress)
	holds("AGENT-CFG-DATA_DIR", agentDataDir)
	holds("AGENT-CFG-SOCKET_PATH", agentSocketPath)
	holds("AGENT-CFG-ADMIN_SOCKET_PATH", agentAdminSocket)
	holds("AGENT-CFG-DISABLE_WORKLOAD_API", agentWithoutWorkloadAPI)
	holds("AGENT-CFG-DISABLE_SDS_API", agentWithoutSDS)
	holds("AGENT-CFG-SDS", agentSDSNames)
	holds("AGENT-CFG-TRUST_BUNDLE_PATH", agentTrustBundlePath)
	holds("AGENT-CFG-TRUST_BUNDLE_URL", agentBundleURL)
	holds("AGENT-CFG-TRUST_BUNDLE_UNIX_SOCKET", agentBundleService)
	holds("AGENT-CFG-TRUST_BUNDLE_SPIFFE_WORKLOAD_API", agentBundleOfAnotherAgent)
	holds("AGENT-CFG-TRUST_BUNDLE_FORMAT", agentBundleFormat)
	holds("AGENT-CFG-INSECURE_BOOTSTRAP", agentInsecure)
	holds("AGENT-CFG-REBOOTSTRAP", agentRebootstrap)
	holds("AGENT-CFG-JOIN_TOKEN", agentJoinToken)
	holds("AGENT-CFG-WORKLOAD_X509_SVID_KEY_TYPE", agentKeyType)
	holds("AGENT-CFG-AVAILABILITY_TARGET", agentAvailability)
	holds("AGENT-CFG-X509_SVID_CACHE_MAX_SIZE", agentCacheSize)
	holds("AGENT-CFG-JWT_SVID_CACHE_MAX_SIZE", agentJWTCacheSize)
	holds("AGENT-CFG-ALLOW_UNAUTHENTICATED_VERIFIERS", agentVerifiers)
	holds("AGENT-CFG-ALLOWED_FOREIGN_JWT_CLAIMS", agentForeignClaims)
	holds("AGENT-CFG-AUTHORIZED_DELEGATES", agentDelegates)
	holds("AGENT-CFG-LOG", agentLog)
	holds("AGENT-CFG-LOG_SELECTORS", agentLogSelectors)
	absent("AGENT-CFG-PROFILING", func(t *testing.T) { takenWithNote(t, `profiling_enabled = true`, "profiling_enabled") })
	holds("AGENT-CFG-EXPERIMENTAL-SYNC_INTERVAL", agentSyncInterval)
	holds("AGENT-CFG-EXPERIMENTAL-USE_SYNC_AUTHORIZED_ENTRIES", agentSyncKind)
	holds("AGENT-CFG-EXPERIMENTAL-REQUIRE_PQ_KEM", agentPostQuantum)
	holds("AGENT-CFG-EXPERIMENTAL-JWT_SVID_CACHE_HIT_TIMEOUT", func(t *testing.T) {
		experimentValidated(t, `jwt_svid_cache_hit_timeout = "5s"`, `jwt_svid_cache_hit_timeout = "30s"`, "jwt_svid_cache_hit_timeout")
		experimentValidated(t, "", `jwt_svid_cache_hit_timeout = "4s"`, "jwt_svid_cache_hit_timeout")
	})
	holds("AGENT-CFG-EXPERIMENTAL-RATELIMIT", agentRateLimit)
	holds("AGENT-CFG-EXPERIMENTAL-BROKER", agentBroker)
	holds("AGENT-CFG-EXPERIMENTAL-FEATURE_FLAGS", func(t *testing.T) {
		experimentValidated(t, `feature_flags = ["wit-svid"]`, `feature_flags = ["quux"]`, "quux")
	})
	absent("AGENT-CFG-EXPERIMENTAL-NAMED_PIPE_NAME", func(t *testing.T) {
		experimentValidated(t, "", `named_pipe_name = "x"`, "named_pipe_name")
		experimentValidated(t, "", `admin_named_pipe_name = "x"`, "admin_named_pipe_name")
	})
	holds("AGENT-CFG-HEALTH_CHECKS", agentHealthChecks)
	holds("AGENT-CFG-SIGNALS", agentSignals)
	holds("AGENT-CFG-PLUGINS", agentPlugins)
	holds("AGENT-CFG-PLUGINS-DATA_FILE", agentPluginFile)
	absent("AGENT-CFG-PLUGINS-EXTERNAL", func(t *testing.T) {
		invalid(t, AgentSettings{Plugins: `WorkloadAttestor "own" { plugin_cmd = "/x" plugin_data {} }`}, "built-in")
	})
}

// valid checks that the command for it takes a configuration.
func valid(t *testing.T, settings AgentSettings) Result {
	t.Helper()
	return PrepareAgent(t, Start(t, Settings{}), settings).Validate(t).Succeeds(t, "configuration file is valid.")
}

// invalid checks that the command for it refuses a configuration and names what is wrong.
func invalid(t *testing.T, settings AgentSettings, text string) {
	t.Helper()
	result := PrepareAgent(t, Start(t, Settings{}), settings).Validate(t)
	if StockAgent() {
		// What is said of the fault is not the same.
		text = ""
	}
	result.Fails(t, 1, text)
}

// validated checks that a good line of the agent block is taken and a bad one refused; either may be empty.
func validated(t *testing.T, good, bad, text string) {
	t.Helper()
	if good != "" {
		valid(t, AgentSettings{Agent: good})
	}
	if bad != "" {
		invalid(t, AgentSettings{Agent: bad}, text)
	}
}

func experimentValidated(t *testing.T, good, bad, text string) {
	t.Helper()
	if good != "" {
		good = "experimental {\n" + good + "\n}"
	}
	validated(t, good, "experimental {\n"+bad+"\n}", text)
}

// trusted checks the lines that say how the server is recognised: taken when no text of a refusal is given.
func trusted(t *testing.T, lines, refusal string) {
	t.Helper()
	settings := AgentSettings{Trust: strings.ReplaceAll(lines, `" `, "\"\n")}
	if refusal == "" {
		valid(t, settings)
	} else {
		invalid(t, settings, refusal)
	}
}

func takenWithNote(t *testing.T, line, key string) {
	t.Helper()
	result := valid(t, AgentSettings{Agent: line})
	True(t, "a note says that it has no effect", strings.Contains(result.Out, key) && strings.Contains(result.Out, "has no effect"))
}

func agentFormat(t *testing.T) {
	validated(t, `log_source_location = true`, `quux = 1`, "quux")
	invalid(t, AgentSettings{Below: "agents {}"}, "agents")
	invalid(t, AgentSettings{Agent: "data_dir ="}, "")
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{})
	host, port, _ := strings.Cut(server.Address, ":")
	agent.WriteFile(t, "agent.conf", fmt.Sprintf(`{"agent": {"trust_domain": "$NAME_OF_ALL", "data_dir": "%[1]s/data", "server_address": %[2]q, "server_port": "1",
		"socket_path": %[3]q, "trust_bundle_path": "%[1]s/bundle.pem", "join_token": %[4]q, "log_level": "$$NONE"},
		"plugins": {"KeyManager": {"memory": {"plugin_data": {}}}, "NodeAttestor": {"join_token": {"plugin_data": {}}}, "WorkloadAttestor": {"unix": {"plugin_data": {}}}}}`,
		agent.Dir, host, agent.Socket, agent.Token))
	agent.Environment = []string{"NAME_OF_ALL=example.org"}
	// Flags win over the file.
	agent.Boot(t, "-expandEnv", "-serverPort", port, "-logLevel", "info")
	if StockAgent() {
		return
	}
	for _, line := range []string{`sds { quux = 1 }`, "experimental {\n quux = 1\n}"} {
		validated(t, "", line, "is not a known key")
	}
	validated(t, "", `log_level = "INFO"`, "is set twice")
}

func agentTrustDomain(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{})
	agent.Validate(t, "-trustDomain", "Not A Name").Fails(t, 1, "trust")
	agent.Validate(t, "-trustDomain", "spiffe://example.org").Succeeds(t)
	other := PrepareAgent(t, server, AgentSettings{})
	other.Spawn(t, "-trustDomain", "other.example")
	if !StockAgent() {
		// SPIRE says it in other words.
		other.AwaitLog(t, "attestation failed")
	}
}

func agentServerAddress(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{})
	text, err := os.ReadFile(agent.ConfigPath)
	Must(t, err)
	host, port, _ := strings.Cut(server.Address, ":")
	agent.WriteFile(t, "agent.conf", strings.NewReplacer(`server_address = "`+host+`"`, "", "server_port = "+port, "").Replace(string(text)))
	agent.Validate(t).Fails(t, 1, "server_address")
	agent.Boot(t, "-serverAddress", host, "-serverPort", port)
}

func agentDataDir(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	agent.Stop()
	_, err := os.Stat(filepath.Join(agent.Dir, "data", "agent-data.json"))
	Must(t, err)
	agent.Boot(t)
	if !StockAgent() {
		agentTakenOver(t, agent)
	}
}

// agentTakenOver checks that an agent goes on with what SPIRE's has kept: its file of the same name holds PEM.
func agentTakenOver(t *testing.T, agent *AgentProcess) {
	agent.Stop()
	path := filepath.Join(agent.Dir, "data", "agent-data.json")
	text, err := os.ReadFile(path)
	Must(t, err)
	var kept struct {
		SVID         [][]byte `json:"svid"`
		Bundle       [][]byte `json:"bundle"`
		Reattestable bool     `json:"reattestable"`
	}
	Must(t, json.Unmarshal(text, &kept))
	for _, certificates := range [][][]byte{kept.SVID, kept.Bundle} {
		for at, der := range certificates {
			certificates[at] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	}
	text, err = json.Marshal(kept)
	Must(t, err)
	Must(t, os.WriteFile(path, text, 0o600))
	// Its join token is spent: there is no other way back.
	agent.Boot(t)
	agent.AwaitLog(t, "the identity of SPIRE's agent is taken over")
}

func agentSocketPath(t *testing.T) {
	valid(t, AgentSettings{Socket: `socket_path = "api.sock"`})
	agent := PrepareAgent(t, Start(t, Settings{}), AgentSettings{})
	agent.Socket = filepath.Join(agent.Dir, "other", "api.sock")
	agent.Boot(t, "-socketPath", agent.Socket)
	hasMode(t, agent.Socket, 0o777)
	hasMode(t, filepath.Dir(agent.Socket), 0o755)
	// One that a dead agent left behind is in nobody's way.
	agent.Signal(t, syscall.SIGKILL)
	Eventually(t, "the agent is dead", agent.HasEnded)
	_, err := os.Stat(agent.Socket)
	Must(t, err)
	agent.Boot(t, "-socketPath", agent.Socket)
}

func hasMode(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	about, err := os.Stat(path)
	Must(t, err)
	Equal(t, "the mode of "+filepath.Base(path), about.Mode().Perm(), mode)
}

func agentTrustBundlePath(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{})
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "spiffe://example.org/w")
	missing := PrepareAgent(t, server, AgentSettings{Trust: `trust_bundle_path = "{DIR}/none.pem"`})
	missing.Spawn(t)
	if !StockAgent() {
		missing.AwaitEnd(t)
	}
	trusted(t, "", "")
	invalid(t, AgentSettings{Trust: "# nothing"}, "trust_bundle_path")
}

func agentBundleService(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{Trust: "trust_bundle_unix_socket = \"{DIR}/bundle.sock\"\ntrust_bundle_url = \"http://local/bundle?own=1\""})
	listener, err := net.Listen("unix", filepath.Join(agent.Dir, "bundle.sock"))
	Must(t, err)
	asked := make(chan *http.Request, 100)
	service := &http.Server{Handler: http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		asked <- request
		http.ServeFile(writer, request, filepath.Join(agent.Dir, "bundle.pem"))
	})}
	go func() { _ = service.Serve(listener) }()
	t.Cleanup(func() { _ = service.Close() })
	agent.Boot(t)
	query := (<-asked).URL.Query()
	host, port, _ := strings.Cut(server.Address, ":")
	for name, expected := range map[string]string{"own": "1", "spire-attest-mode": "bootstrap", "spire-connection-attempts": "1", "spire-server-address": host, "spire-server-port": port, "spiffe-trust-domain": TrustDomain} {
		Equal(t, name, query.Get(name), expected)
	}
	True(t, "there is a start time", query.Get("spire-attest-start-time") != "")
	trusted(t, `trust_bundle_unix_socket = "/s" trust_bundle_url = "http://local/b?spire-x=1"`, "spire-")
	trusted(t, `trust_bundle_unix_socket = "/s" trust_bundle_url = "https://local/b"`, "http://")
}

func agentBundleOfAnotherAgent(t *testing.T) {
	server := Start(t, Settings{})
	first := StartAgent(t, server, AgentSettings{})
	first.Register(t, "/nested")
	first.AwaitFetch(t, "/nested")
	second := PrepareAgent(t, server, AgentSettings{Trust: `trust_bundle_spiffe_workload_api = "unix://` + first.Socket + `"`})
	second.Boot(t)
	trusted(t, `trust_bundle_spiffe_workload_api = "unix:///x" trust_bundle_path = "/b"`, "trust_bundle_spiffe_workload_api")
	trusted(t, `trust_bundle_spiffe_workload_api = "quux"`, "trust_bundle_spiffe_workload_api")
}

func agentBundleFormat(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{Agent: `trust_bundle_format = "spiffe"`})
	agent.WriteFile(t, "bundle.pem", server.Run(t, "bundle", "show", "-format", "spiffe").Succeeds(t).Out)
	agent.Boot(t)
	validated(t, "", `trust_bundle_format = "der"`, "trust_bundle_format")
}

func agentInsecure(t *testing.T) {
	StartAgent(t, Start(t, Settings{}), AgentSettings{Trust: "insecure_bootstrap = true"})
	trusted(t, `insecure_bootstrap = true trust_bundle_path = "{DIR}/bundle.pem"`, "insecure_bootstrap")
}

func agentJoinToken(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{WithoutToken: true})
	token := server.JoinToken(t)
	agent.Boot(t, "-joinToken", token)
	server.Run(t, "agent", "list").Succeeds(t, "/spire/agent/join_token/"+token)
	file := PrepareAgent(t, server, AgentSettings{WithoutToken: true, Agent: `join_token_file = "{DIR}/token"`})
	file.WriteFile(t, "token", server.JoinToken(t)+"\n")
	file.Boot(t)
	validated(t, "", `join_token_file = "{DIR}/bundle.pem"`, "join_token")
}

func agentKeyType(t *testing.T) {
	validated(t, `workload_x509_svid_key_type = "EC-P256"`, `workload_x509_svid_key_type = "ec-p512"`, "workload_x509_svid_key_type")
	server := Start(t, Settings{})
	for name, isOf := range map[string]func(any) bool{
		"ec-p384": func(key any) bool {
			key384, is := key.(*ecdsa.PublicKey)
			return is && key384.Curve.Params().BitSize == 384
		},
		"rsa-2048": func(key any) bool { key2048, is := key.(*rsa.PublicKey); return is && key2048.N.BitLen() == 2048 },
	} {
		agent := StartAgent(t, server, AgentSettings{Agent: `workload_x509_svid_key_type = "` + name + `"`})
		agent.Register(t, "/w")
		agent.AwaitFetch(t, "/w")
		agent.Run(t, "api", "fetch", "x509", "-write", agent.Dir).Succeeds(t)
		text, err := os.ReadFile(filepath.Join(agent.Dir, "svid.0.pem"))
		Must(t, err)
		block, _ := pem.Decode(text)
		certificate, err := x509.ParseCertificate(block.Bytes)
		Must(t, err)
		True(t, "the key of an SVID is "+name, isOf(certificate.PublicKey))
		agent.Stop()
	}
	validated(t, "", `workload_x509_svid_key_type = "ec-p521"`, "")
}

func agentLogSelectors(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: `log_selectors = ["unix:uid"]`})
	agent.Run(t, "api", "fetch", "x509").Fails(t, 1)
	log := agent.AwaitLog(t, "unix:uid:")
	for line := range strings.Lines(log) {
		if strings.Contains(strings.ToLower(line), "no identity issued") {
			True(t, "no other selector is told", !strings.Contains(line, "unix:gid"))
		}
	}
}

func agentRateLimit(t *testing.T) {
	experimentValidated(t, `ratelimit { fetch_x509_svid = 1 fetch_jwt_svid = 2 fetch_x509_bundles = 3 fetch_jwt_bundles = 4 stream_secrets = 5 fetch_secrets = 6 }`,
		`ratelimit { fetch_secrets = -1 }`, "fetch_secrets")
	experimentValidated(t, "", `ratelimit { quux = 1 }`, "")
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: "experimental {\n ratelimit { fetch_x509_svid = 1 }\n}"})
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "spiffe://example.org/w")
	Eventually(t, "a call is beyond the limit", func() bool {
		for range 10 {
			result := agent.Run(t, "api", "fetch", "x509")
			if strings.Contains(result.Out+result.Err, "rate limit exceeded for /SpiffeWorkloadAPI/FetchX509SVID") {
				return true
			}
		}
		return false
	})
	agent.AwaitFetch(t, "spiffe://example.org/w")
	agent.Run(t, "api", "fetch", "jwt", "-audience", "a").Succeeds(t, "spiffe://example.org/w")
}

func agentBroker(t *testing.T) {
	one := `{ id = "spiffe://other.example/b" allowed_reference_types = [ { type_url = "*" } ] }`
	experimentValidated(t, `broker { socket_path = "{DIR}/b/broker.sock" bind_address = "127.0.0.1:0" brokers = [`+one+`] }`, `broker { brokers = [] }`, "broker")
	for _, bad := range []string{
		`socket_path = "{DIR}/p/b.sock" brokers = []`,
		`socket_path = "/b/s" brokers = [` + one + `, ` + one + `]`,
		`socket_path = "/b/s" brokers = [ { id = "quux" allowed_reference_types = [ { type_url = "*" } ] } ]`,
		`socket_path = "/b/s" brokers = [ { id = "spiffe://a/b" allowed_reference_types = [] } ]`,
		`socket_path = "/b/s" brokers = [ { id = "spiffe://a/b" allowed_reference_types = [ { type_url = "*" }, { type_url = "a" } ] } ]`,
	} {
		experimentValidated(t, "", "broker { "+bad+" }", "broker")
	}
}
