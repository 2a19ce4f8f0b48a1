package conformance

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	. "spindle-conformance/harness"
)

func init() {
	holds("CFG-FORMAT", configFormat)
	holds("CFG-EXPAND_ENV", expandEnv)
	holds("CFG-SIGNALS", signals)
	holds("CFG-SERVER-TRUST_DOMAIN", trustDomain)
	holds("CFG-SERVER-DATA_DIR", dataDir)
	holds("CFG-SERVER-BIND_ADDRESS", bindAddress)
	holds("CFG-SERVER-BIND_PORT", bindPort)
	holds("CFG-SERVER-SOCKET_PATH", socketPath)
	holds("CFG-SERVER-CA_KEY_TYPE", caKeyType)
	holds("CFG-SERVER-CA_TTL", caTTL)
	holds("CFG-SERVER-CA_SUBJECT", caSubject)
	holds("CFG-SERVER-JWT_KEY_TYPE", jwtKeyType)
	holds("CFG-SERVER-JWT_ISSUER", jwtIssuer)
	holds("CFG-SERVER-DEFAULT_X509_SVID_TTL", defaultX509TTL)
	holds("CFG-SERVER-DEFAULT_JWT_SVID_TTL", defaultJWTTTL)
	holds("CFG-SERVER-AGENT_TTL", agentTTL)
	holds("CFG-SERVER-DISABLE_JWT_SVIDS", disableJWT)
	holds("CFG-SERVER-ADMIN_IDS", adminIDs)
	holds("CFG-SERVER-AUDIT_LOG_ENABLED", auditLog)
	holds("CFG-SERVER-RATELIMIT", rateLimitSwitches)
	holds("CFG-SERVER-LOG_LEVEL", logLevel)
	holds("CFG-SERVER-LOG_FORMAT", logFormat)
	holds("CFG-SERVER-LOG_FILE", logFile)
	holds("CFG-SERVER-LOG_SOURCE_LOCATION", logSourceLocation)
	holds("CFG-SERVER-PRUNE_ATTESTED_NODES_EXPIRED_FOR", func(t *testing.T) { pruning(t, "prune_attested_nodes_expired_for", `"24h"`, `"soon"`) })
	holds("CFG-SERVER-PRUNE_TOFU_NODES", func(t *testing.T) { pruning(t, "prune_tofu_nodes", "true", `"perhaps"`) })
	holds("CFG-SERVER-PRUNE_ATTESTED_NODES_BATCH_SIZE", func(t *testing.T) { pruning(t, "prune_attested_nodes_batch_size", "10", `"many"`) })
	holds("CFG-SERVER-MAX_ATTESTED_NODE_INFO_STALENESS", staleness)
	holds("CFG-EXPERIMENTAL-CACHE", cacheSettings)
	holds("CFG-HEALTH_CHECKS", healthChecks)
	absent("CFG-SERVER-PROXY_PROTOCOL_TRUSTED_CIDRS", func(t *testing.T) {
		refusedSetting(t, `proxy_protocol_trusted_cidrs = ["10.0.0.0/8"]`, "proxy_protocol_trusted_cidrs")
	})
	absent("CFG-SERVER-PROFILING", func(t *testing.T) {
		Start(t, Settings{Server: "profiling_enabled = true"}).AwaitLog(t, "server.profiling_enabled has no effect")
	})
	absent("CFG-SERVER-FEDERATION", func(t *testing.T) {
		refusedSetting(t, `federation { bundle_endpoint { address = "127.0.0.1" port = 8443 } }`, "federation")
	})
	holds("CFG-EXPERIMENTAL-AGENT_SPIFFE_ID_AS_SELECTOR", agentIDAsSelector)
	absent("CFG-EXPERIMENTAL-AUTH_OPA_POLICY_ENGINE", func(t *testing.T) { refusedExperiment(t, "auth_opa_policy_engine", `{ local { rego_path = "/x" } }`) })
	absent("CFG-EXPERIMENTAL-REQUIRE_PQ_KEM", func(t *testing.T) { refusedExperiment(t, "require_pq_kem", "true") })
	holds("CFG-EXPERIMENTAL-FEATURE_FLAGS", featureFlags)
	absent("CFG-EXPERIMENTAL-NAMED_PIPE_NAME", func(t *testing.T) { refusedExperiment(t, "named_pipe_name", `"x"`) })
	holds("CFG-EXPERIMENTAL-WIT", witSettings)
}

func refusedSetting(t *testing.T, line, name string) {
	t.Helper()
	Refuses(t, Settings{Server: line}, "server."+name)
}

func refusedExperiment(t *testing.T, name, value string) {
	t.Helper()
	assignment := " = "
	if strings.HasPrefix(value, "{") {
		assignment = " "
	}
	Refuses(t, Settings{Server: "experimental { " + name + assignment + value + " }"}, "experimental."+name)
}

func configFormat(t *testing.T) {
	s := Prepare(t, Settings{})
	document := map[string]any{
		"server": map[string]any{"trust_domain": TrustDomain, "data_dir": s.Dir, "socket_path": s.Socket, "bind_address": "127.0.0.1", "bind_port": "0", "log_level": "WARN"},
		"plugins": map[string]any{
			"DataStore":    []any{map[string]any{"memory": map[string]any{"plugin_data": map[string]any{}}}},
			"KeyManager":   []any{map[string]any{"memory": map[string]any{"plugin_data": map[string]any{}}}},
			"NodeAttestor": []any{map[string]any{"join_token": map[string]any{"plugin_data": map[string]any{}}}},
		},
	}
	text, err := json.Marshal(document)
	Must(t, err)
	if !Stock() {
		s.WriteFile(t, "server.conf", string(text))
		s.Boot(t, "-logLevel", "DEBUG")
		s.Run(t, "logger", "get").Succeeds(t, "debug")
		for _, where := range []Settings{
			{Server: "bind_prt = 1"}, {Below: "servers {}"}, {Server: "ca_subject { contry = [] }"}, {Server: "ratelimit { signin = true }"},
			{Server: "experimental { no_such_key = 1 }"}, {Below: "health_checks { listener_on = true }"},
		} {
			Refuses(t, where, "is not a known key")
		}
	}
	Refuses(t, Settings{Server: "quux_and_more = 1"}, "quux_and_more")
	Refuses(t, Settings{Server: "ca_ttl ="})
	Refuses(t, Settings{Below: "server {"})
}

func expandEnv(t *testing.T) {
	s := Prepare(t, Settings{Server: `ca_subject { common_name = "${CF_NAME}-$CF_OTHER-$$x-$CF_UNSET" }`})
	s.Spawn(t, []string{"CF_NAME=one", "CF_OTHER=two"}, "-expandEnv")
	s.AwaitServing(t)
	Equal(t, "the expanded name", rootOf(t, s).Subject.CommonName, "one-two-$x-")
	plain := Start(t, Settings{Server: `ca_subject { common_name = "$HOME" }`})
	Equal(t, "the name without the flag", rootOf(t, plain).Subject.CommonName, "$HOME")
}

func rootOf(t *testing.T, s *Server) *x509.Certificate {
	t.Helper()
	certificate, err := x509.ParseCertificate(s.Bundle(t).X509Authorities[0].Asn1)
	Must(t, err)
	return certificate
}

func signals(t *testing.T) {
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		s := Start(t, Settings{})
		s.Signal(t, signal)
		Eventually(t, "the server ends", s.HasEnded)
	}
	if Stock() {
		return
	}
	s := Start(t, Settings{Server: `default_x509_svid_ttl = "10m"`})
	near(t, "an SVID before the reload", s.Mint(t, "/w", 0).Leaf(), 10*time.Minute)
	s.WriteConfig(t, Settings{Server: `default_x509_svid_ttl = "20m"`})
	s.Signal(t, syscall.SIGHUP)
	Eventually(t, "the new lifetime holds", func() bool {
		leaf := s.Mint(t, "/w", 0).Leaf()
		return leaf.NotAfter.Sub(leaf.NotBefore) >= 20*time.Minute
	})
	s.WriteConfig(t, Settings{Server: `default_x509_svid_ttl = "soon"`})
	s.Signal(t, syscall.SIGHUP)
	s.AwaitLog(t, "soon")
	near(t, "an SVID after a bad file", s.Mint(t, "/w", 0).Leaf(), 20*time.Minute)
}

func trustDomain(t *testing.T) {
	s := Start(t, Settings{TrustDomain: "prod.acme.example"})
	Equal(t, "the trust domain", s.Bundle(t).TrustDomain, "prod.acme.example")
	Refuses(t, Settings{TrustDomain: "Not A Name"}, "trust_domain")
	missing := Prepare(t, Settings{})
	missing.WriteFile(t, "server.conf", fmt.Sprintf("server {\n data_dir = %q\n}\nplugins {}\n", missing.Dir))
	Execute(t, missing.Dir, nil, "", "run", "-config", missing.ConfigPath).Fails(t, 1, "trust_domain")
}

func dataDir(t *testing.T) {
	store := outliving()
	keys := `KeyManager "disk" { plugin_data { keys_path = "{DIR}/data/keys.json" } }`
	s := Start(t, Settings{Store: store, Keys: keys})
	about, err := os.Stat(filepath.Join(s.Dir, "data"))
	Must(t, err)
	True(t, "the directory is made", about.IsDir())
	create(t, s, entry("/n", "/kept", "a:1"))
	before := rootOf(t, s)
	s.Stop()
	s.Boot(t)
	s.Run(t, "entry", "show").Succeeds(t, "spiffe://example.org/kept")
	True(t, "the authority is kept", rootOf(t, s).Equal(before))
	missing := Prepare(t, Settings{})
	missing.WriteFile(t, "server.conf", "server {\n trust_domain = \"example.org\"\n}\nplugins {}\n")
	Execute(t, missing.Dir, nil, "", "run", "-config", missing.ConfigPath).Fails(t, 1, "data_dir")
}

func bindAddress(t *testing.T) {
	s := Start(t, Settings{})
	True(t, "it listens where it is told: "+s.Address, strings.HasPrefix(s.Address, "127.0.0.1:"))
	Refuses(t, Settings{BindAddress: "not an address"}, "bind_address")
}

func bindPort(t *testing.T) {
	s := Start(t, Settings{})
	_, port, _ := strings.Cut(s.Address, ":")
	True(t, "a real port is logged", port != "0")
	Refuses(t, Settings{BindPort: port}, port)
	Refuses(t, Settings{BindPort: `"many"`}, "bind_port")
	quoted := Start(t, Settings{BindPort: fmt.Sprintf(`"%d"`, freePort(t))})
	quoted.Run(t, "healthcheck").Succeeds(t)
}

func socketPath(t *testing.T) {
	s := Start(t, Settings{})
	about, err := os.Stat(s.Socket)
	Must(t, err)
	Equal(t, "who may connect", about.Mode().Perm(), os.FileMode(0o770))
	parent, err := os.Stat(filepath.Dir(s.Socket))
	Must(t, err)
	Equal(t, "who may look into its directory", parent.Mode().Perm(), os.FileMode(0o750))
	s.Stop()
	s.Boot(t)
	s.Run(t, "healthcheck").Succeeds(t)
}

func caKeyType(t *testing.T) {
	for kind, is := range keyKinds() {
		s := Start(t, Settings{Server: fmt.Sprintf("ca_key_type = %q", kind)})
		True(t, "the authority's key is "+kind, is(rootOf(t, s).PublicKey))
		public, err := x509.ParsePKIXPublicKey(s.Bundle(t).JwtAuthorities[0].PublicKey)
		Must(t, err)
		True(t, "the JWT key is "+kind, is(public))
		s.Verify(t, s.Mint(t, "/w", 0))
	}
	Refuses(t, Settings{Server: `ca_key_type = "ed25519"`}, "ca_key_type")
}

func keyKinds() map[string]func(any) bool {
	elliptic := func(bits int) func(any) bool {
		return func(key any) bool { public, is := key.(*ecdsa.PublicKey); return is && public.Params().BitSize == bits }
	}
	return map[string]func(any) bool{
		"ec-p256": elliptic(256), "ec-p384": elliptic(384),
		"rsa-2048": func(key any) bool { public, is := key.(*rsa.PublicKey); return is && public.N.BitLen() == 2048 },
	}
}

func caTTL(t *testing.T) {
	s := Start(t, Settings{Server: `ca_ttl = "100h"`})
	near(t, "the authority", rootOf(t, s), 100*time.Hour)
	leaf := s.Mint(t, "/w", 1<<30).Leaf()
	True(t, "no SVID outlives its authority", !leaf.NotAfter.After(rootOf(t, s).NotAfter))
	Refuses(t, Settings{Server: `ca_ttl = "soon"`}, "ca_ttl")
}

func caSubject(t *testing.T) {
	s := Start(t, Settings{Server: `ca_subject { country = ["NO"] organization = ["Acme"] common_name = "root" }`})
	subject := rootOf(t, s).Subject
	True(t, fmt.Sprintf("the subject is %v", subject), subject.Country[0] == "NO" && subject.Organization[0] == "Acme" && subject.CommonName == "root")
	subject = rootOf(t, Start(t, Settings{})).Subject
	True(t, fmt.Sprintf("the default is %v", subject), subject.Country[0] == "US" && subject.Organization[0] == "SPIFFE")
	True(t, "the serial number is in the subject", subject.SerialNumber != "")
	if !Stock() {
		Refuses(t, Settings{Server: `ca_subject { country = ["NO", "SE"] }`}, "ca_subject.country")
	}
}

func jwtKeyType(t *testing.T) {
	for kind, is := range keyKinds() {
		s := Start(t, Settings{Server: fmt.Sprintf("jwt_key_type = %q", kind)})
		public, err := x509.ParsePKIXPublicKey(s.Bundle(t).JwtAuthorities[0].PublicKey)
		Must(t, err)
		True(t, "the JWT key is "+kind, is(public))
		True(t, "the authority's key is as ever", keyKinds()["ec-p256"](rootOf(t, s).PublicKey))
		answer, err := svidsOf(t, s).MintJWTSVID(Context(t), &svidv1.MintJWTSVIDRequest{Id: ID("/w"), Audience: []string{"x"}})
		Must(t, err)
		header, _ := claims(t, s, answer.Svid.Token)
		Equal(t, "the algorithm", header["alg"], any(map[string]string{"ec-p256": "ES256", "ec-p384": "ES384", "rsa-2048": "RS256"}[kind]))
	}
	Refuses(t, Settings{Server: `jwt_key_type = "ed25519"`}, "jwt_key_type")
}

func jwtBody(t *testing.T, s *Server) map[string]any {
	t.Helper()
	answer, err := svidsOf(t, s).MintJWTSVID(Context(t), &svidv1.MintJWTSVIDRequest{Id: ID("/w"), Audience: []string{"x"}})
	Must(t, err)
	_, body := claims(t, s, answer.Svid.Token)
	return body
}

func jwtIssuer(t *testing.T) {
	s := Start(t, Settings{Server: `jwt_issuer = "https://oidc.example.org"`})
	Equal(t, "the issuer", jwtBody(t, s)["iss"], any("https://oidc.example.org"))
}

func defaultX509TTL(t *testing.T) {
	s := Start(t, Settings{Server: `default_x509_svid_ttl = "20m"`})
	near(t, "a workload's SVID", s.Mint(t, "/w", 0).Leaf(), 20*time.Minute)
	agent := s.Attest(t)
	near(t, "an agent's SVID", agent.Leaf(), 20*time.Minute)
	plain := Start(t, Settings{})
	near(t, "an SVID by default", plain.Mint(t, "/w", 0).Leaf(), time.Hour)
	Refuses(t, Settings{Server: `default_x509_svid_ttl = "soon"`}, "default_x509_svid_ttl")
}

func defaultJWTTTL(t *testing.T) {
	s := Start(t, Settings{Server: `default_jwt_svid_ttl = "90s"`})
	body := jwtBody(t, s)
	Equal(t, "the lifetime", number(body["exp"])-number(body["iat"]), int64(90))
	Refuses(t, Settings{Server: `default_jwt_svid_ttl = "soon"`}, "default_jwt_svid_ttl")
}

func agentTTL(t *testing.T) {
	s := Start(t, Settings{Server: `agent_ttl = "30m"`})
	near(t, "an agent's SVID", s.Attest(t).Leaf(), 30*time.Minute)
	near(t, "a workload's SVID", s.Mint(t, "/w", 0).Leaf(), time.Hour)
	Refuses(t, Settings{Server: `agent_ttl = "soon"`}, "agent_ttl")
}

func disableJWT(t *testing.T) {
	s := Start(t, Settings{Server: `disable_jwt_svids = true`})
	_, err := svidsOf(t, s).MintJWTSVID(Context(t), &svidv1.MintJWTSVIDRequest{Id: ID("/w"), Audience: []string{"x"}})
	Refused(t, err, codes.Unimplemented, "JWT functionality is disabled")
	agent := s.Attest(t)
	_, err = svidv1.NewSVIDClient(agent.Conn).NewJWTSVID(Context(t), &svidv1.NewJWTSVIDRequest{EntryId: "x", Audience: []string{"x"}})
	Refused(t, err, codes.Unimplemented, "JWT functionality is disabled")
	Equal(t, "the number of JWT keys", len(s.Bundle(t).JwtAuthorities), 0)
	s.Run(t, "localauthority", "jwt", "show").Fails(t, 1, "JWT functionality is disabled")
}

func adminIDs(t *testing.T) {
	s := Start(t, Settings{Server: `admin_ids = ["spiffe://example.org/admin"]`})
	count := func(path string) error {
		_, err := entryv1.NewEntryClient(s.Dial(t, s.Mint(t, path, 0))).CountEntries(Context(t), &entryv1.CountEntriesRequest{})
		return err
	}
	Must(t, count("/admin"))
	Refused(t, count("/other"), codes.PermissionDenied)
	Refuses(t, Settings{Server: `admin_ids = ["no id"]`}, "admin_ids")
}

func auditLog(t *testing.T) {
	s := Start(t, Settings{Server: "audit_log_enabled = true\nlog_format = \"json\""})
	create(t, s, entry("/n", "/audited", "a:1"))
	_, err := agentsOf(t, s).DeleteAgent(Context(t), &agentv1.DeleteAgentRequest{Id: ID("/spire/agent/x/none")})
	Refused(t, err, codes.NotFound)
	records := func() (found []map[string]any) {
		for line := range strings.Lines(s.Log()) {
			var record map[string]any
			if json.Unmarshal([]byte(line), &record) == nil && record["msg"] == "API accessed" {
				found = append(found, record)
			}
		}
		return found
	}
	// The record of the call whose field has that value; other calls may have records, too.
	record := func(key, value string) (found map[string]any) {
		Eventually(t, fmt.Sprintf("a call with %s %s is recorded", key, value), func() bool {
			for _, one := range records() {
				if one[key] == value {
					found = one
				}
			}
			return found != nil
		})
		return found
	}
	first, second := record("spiffe_id", "spiffe://example.org/audited"), record("status", "error")
	Equal(t, "the type", first["type"], any("audit"))
	Equal(t, "the outcome", first["status"], any("success"))
	Equal(t, "the kind of caller", first["authorized_as"], any("local"))
	True(t, "each call has an id", first["request_id"] != nil && first["request_id"] != second["request_id"])
	True(t, "a local caller is named by user", first["caller_uid"] != nil && first["caller_gid"] != nil)
	True(t, "its code and text", second["status_code"] != nil && second["status_message"] != nil)
	quiet := Start(t, Settings{})
	create(t, quiet, entry("/n", "/audited", "a:1"))
	True(t, "nothing by default", !strings.Contains(quiet.Log(), "API accessed"))
}

func rateLimitSwitches(t *testing.T) {
	s := Start(t, Settings{Server: "ratelimit { attestation = false signing = false }"})
	agent := s.Attest(t)
	request := &svidv1.BatchNewX509SVIDRequest{}
	csr := CSR(t, NewKey(t), nil)
	for range 600 {
		request.Params = append(request.Params, &svidv1.NewX509SVIDParams{EntryId: "x", Csr: csr})
	}
	_, err := svidv1.NewSVIDClient(agent.Conn).BatchNewX509SVID(Context(t), request)
	Must(t, err)
	limited := Start(t, Settings{Server: "ratelimit { attestation = false }"})
	_, err = svidv1.NewSVIDClient(limited.Attest(t).Conn).BatchNewX509SVID(Context(t), request)
	Equal(t, "the code with the limit", status.Code(err), codes.ResourceExhausted)
	Refuses(t, Settings{Server: `ratelimit { attestation = "perhaps" }`}, "ratelimit")
}

func logLevel(t *testing.T) {
	s := Prepare(t, Settings{})
	s.Boot(t, "-logLevel", "INFO")
	True(t, "no lines below the level", !strings.Contains(s.Log(), "level=debug"))
	Execute(t, s.Dir, nil, "", "run", "-config", s.ConfigPath, "-logLevel", "loud").Fails(t, 1, "loud")
}

func logFormat(t *testing.T) {
	s := Start(t, Settings{Server: `log_format = "json"`})
	for line := range strings.Lines(s.Log()) {
		var record map[string]any
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Errorf("no JSON: %s", line)
			continue
		}
		True(t, "each line has SPIRE's keys: "+line, record["msg"] != nil && record["level"] != nil && record["time"] != nil)
	}
	text := Start(t, Settings{})
	True(t, "text by default", strings.Contains(text.Log(), `msg="Starting Server APIs"`) && strings.Contains(text.Log(), "level=info"))
	Refuses(t, Settings{Server: `log_format = "xml"`}, "log_format")
}

func logFile(t *testing.T) {
	s := Prepare(t, Settings{Server: `log_file = "{DIR}/server.log"`})
	s.Spawn(t, nil)
	path := filepath.Join(s.Dir, "server.log")
	contains := func(path, text string) func() bool {
		return func() bool {
			content, err := os.ReadFile(path)
			return err == nil && strings.Contains(string(content), text)
		}
	}
	Eventually(t, "the file is written", contains(path, "network=unix"))
	Must(t, os.Rename(path, path+".1"))
	s.Signal(t, syscall.SIGUSR2)
	Eventually(t, "a new file is opened", func() bool { _, err := os.Stat(path); return err == nil })
	create(t, s, entry("/n", "/logged", "a:1"))
}

func logSourceLocation(t *testing.T) {
	s := Start(t, Settings{Server: `log_source_location = true`})
	with := strings.Contains(s.Log(), ".rs:") || strings.Contains(s.Log(), ".go:")
	True(t, "lines say where they come from", with)
	True(t, "not by default", !strings.Contains(Start(t, Settings{}).Log(), ".rs:"))
}

// pruning accepts a good value and refuses a bad one. That agents really go is shown where a test can move the clock, in the
// server's own tests: none expires within the patience of this one.
func pruning(t *testing.T, name, good, bad string) {
	s := Start(t, Settings{Server: name + " = " + good})
	s.Attest(t)
	s.Run(t, "agent", "count").Succeeds(t, "1 attested agent")
	Refuses(t, Settings{Server: name + " = " + bad}, name)
}

func staleness(t *testing.T) {
	s := Start(t, Settings{Server: `max_attested_node_info_staleness = "1h"`})
	agent := s.Attest(t)
	Must(t, knock(t, agent))
	if !Stock() {
		evict(t, s, agent)
		Refused(t, knock(t, agent), codes.PermissionDenied)
	}
}

func cacheSettings(t *testing.T) {
	lines := `experimental { cache_reload_interval = "1h" full_cache_reload_interval = "24h" events_based_cache = true prune_events_older_than = "12h" }`
	s := Start(t, Settings{Server: lines})
	if Stock() {
		return
	}
	agent := s.Attest(t)
	create(t, s, entry(agent.ID.Path, "/w", "a:1"))
	Equal(t, "what the agent may have at once", len(authorizedOf(t, agent, nil)), 1)
}

func agentIDAsSelector(t *testing.T) {
	s := Start(t, Settings{Server: "experimental { agent_spiffe_id_as_selector = true }"})
	agent := s.Attest(t)
	found, err := agentsOf(t, s).GetAgent(Context(t), &agentv1.GetAgentRequest{Id: agent.ID})
	Must(t, err)
	if len(found.Selectors) != 1 || found.Selectors[0].Type != "spiffe_id" || found.Selectors[0].Value != Uri(agent.ID) {
		t.Errorf("the agent's own ID is not its selector: %v", found.Selectors)
	}
	create(t, s, entry("/spire/server", "/alias", "spiffe_id:"+Uri(agent.ID)), entry("/alias", "/w", "a:1"))
	Eventually(t, "an alias by that selector gives what is below it", func() bool { return len(authorizedOf(t, agent, nil)) == 1 })
}

func featureFlags(t *testing.T) {
	mint := func(s *Server) error {
		_, err := svidsOf(t, s).MintWITSVID(Context(t), witRequest(t, ID("/w"), 0))
		return err
	}
	Must(t, mint(Start(t, Settings{Server: `experimental { feature_flags = ["i_am_a_test_flag", "wit-svid"] }`})))
	off := Start(t, Settings{Server: `experimental { feature_flags = ["i_am_a_test_flag"] }`})
	Refused(t, mint(off), codes.Unimplemented, "WIT functionality is disabled")
	Equal(t, "the WIT authorities of a server without the flag", len(off.Bundle(t).WitAuthorities), 0)
	Refuses(t, Settings{Server: `experimental { feature_flags = ["wit"] }`}, "unknown feature flag")
}

func witSettings(t *testing.T) {
	s := Start(t, Settings{Server: `experimental { feature_flags = ["wit-svid"] wit_key_type = "ec-p384" wit_issuer = "spiffe://example.org" }`})
	answer, err := svidsOf(t, s).MintWITSVID(Context(t), witRequest(t, ID("/w"), 0))
	Must(t, err)
	header, body := witClaims(t, s, answer.Svid.Token)
	Equal(t, "the algorithm", header["alg"], any("ES384"))
	Equal(t, "the issuer", body["iss"], any("spiffe://example.org"))
	Refuses(t, Settings{Server: `experimental { feature_flags = ["wit-svid"] wit_key_type = "ed25519" }`}, "wit_key_type")
	// As jwt_key_type, it is that of X.509 authorities when nothing is said.
	s = Start(t, Settings{Server: `ca_key_type = "ec-p384" experimental { feature_flags = ["wit-svid"] }`})
	answer, err = svidsOf(t, s).MintWITSVID(Context(t), witRequest(t, ID("/w"), 0))
	Must(t, err)
	header, _ = witClaims(t, s, answer.Svid.Token)
	Equal(t, "the algorithm when nothing is said", header["alg"], any("ES384"))
}

func healthChecks(t *testing.T) {
	port := freePort(t)
	s := Start(t, Settings{Below: fmt.Sprintf(`health_checks { listener_enabled = true bind_address = "127.0.0.1" bind_port = "%d" live_path = "/alive" ready_path = "/able" }`, port)})
	get := func(path string) (int, map[string]any) {
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			return 0, nil
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		Must(t, err)
		var body map[string]any
		_ = json.Unmarshal(text, &body)
		return answer.StatusCode, body
	}
	for _, path := range []string{"/alive", "/able"} {
		Eventually(t, "the server is healthy at "+path, func() bool { code, _ := get(path); return code == http.StatusOK })
		_, body := get(path)
		for _, name := range []string{"server", "server.ca", "server.ca.rotator", "catalog.datastore"} {
			_, has := body[name]
			True(t, name+" is among the checks", has)
		}
	}
	code, _ := get("/other")
	Equal(t, "the code of another path", code, http.StatusNotFound)
	s.Stop()
	code, _ = get("/alive")
	Equal(t, "the code after the end", code, 0)
}
