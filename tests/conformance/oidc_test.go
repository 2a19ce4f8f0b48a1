package conformance

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	. "spindle-conformance/harness"
)

const (
	oidcDiscovery = "/.well-known/openid-configuration"
	oidcSource    = "server_api { address = \"unix://{SOCKET}\" poll_interval = \"1s\" }\n"
	oidcListener  = "insecure_addr = \"127.0.0.1:0\"\n"
	oidcDomains   = "domains = [\"oidc.test\", \"other.test\"]\n"
	oidcPlain     = oidcDomains + oidcListener + oidcSource
)

func init() {
	for id, run := range map[string]func(t *testing.T){
		"OIDC-COMMAND": oidcCommand, "OIDC-DISCOVERY": oidcDocument, "OIDC-ISSUER": oidcIssuer, "OIDC-PATH_PREFIX": oidcPathPrefix,
		"OIDC-INSECURE_SCHEME": oidcScheme, "OIDC-KEYS": oidcKeys, "OIDC-SERVER_API": oidcServerAPI, "OIDC-WORKLOAD_API": oidcWorkloadAPI, "OIDC-FILE": oidcFile,
		"OIDC-LISTEN_SOCKET_PATH": oidcSocket, "OIDC-SERVING_CERT_FILE": oidcServingFiles, "OIDC-ACME": oidcACME,
		"OIDC-HEALTH_CHECKS": oidcHealth, "OIDC-LOGS": oidcLogs, "OIDC-UNKNOWN_KEYS": oidcUnknownKeys,
		"OIDC-EXCLUSIVE": oidcExclusive, "OIDC-RELOAD": oidcReload,
	} {
		holds(id, func(t *testing.T) {
			if Stock() {
				t.Skip("SPIRE's provider is another program than its server")
			}
			run(t)
		})
	}
	absent("OIDC-NAMED_PIPES", func(t *testing.T) {
		refusedProvider(t, oidcPlain+`experimental { listen_named_pipe_name = "x" }`, "experimental.listen_named_pipe_name")
		refusedProvider(t, oidcDomains+oidcListener+`server_api { experimental { named_pipe_name = "x" } }`, "server_api.experimental.named_pipe_name")
	})
}

// refusedProvider starts a provider that must not come up; each text has to be in what it says.
func refusedProvider(t *testing.T, config string, texts ...string) {
	t.Helper()
	s := Prepare(t, Settings{})
	path := s.WriteFile(t, "refused.conf", strings.ReplaceAll(config, "{SOCKET}", s.Socket))
	oidcRun(t, s, "-config", path).Fails(t, 1, texts...)
}

func oidcRun(t *testing.T, s *Server, words ...string) Result {
	t.Helper()
	return ExecuteBinary(t, SpindleBinary(), s.Dir, nil, "", append([]string{"oidc-discovery-provider"}, words...)...)
}

func oidcCommand(t *testing.T) {
	s := Prepare(t, Settings{})
	oidcRun(t, s, "extra").Fails(t, 1, "extra", "Usage")
	oidcRun(t, s, "-version").Succeeds(t, "0.")
	oidcRun(t, s).Fails(t, 1, "oidc-discovery-provider.conf")
	text := strings.ReplaceAll(oidcPlain, "{SOCKET}", "$OIDC_SOCKET")
	path := s.WriteFile(t, "env.conf", text)
	environment := []string{"OIDC_SOCKET=" + s.Socket}
	words := []string{"oidc-discovery-provider", "-config", path, "-expandEnv", "-check-config"}
	ExecuteBinary(t, SpindleBinary(), s.Dir, environment, "", words...).Succeeds(t, "valid")
	// The file that is there by default is the one in the working directory.
	s.WriteFile(t, "oidc-discovery-provider.conf", text)
	oidcRun(t, s, "-check-config").Succeeds(t, "valid")
}

type oidcMetadata struct {
	Issuer                string   `json:"issuer"`
	JWKSURI               string   `json:"jwks_uri"`
	AuthorizationEndpoint *string  `json:"authorization_endpoint"`
	ResponseTypes         []string `json:"response_types_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	Algorithms            []string `json:"id_token_signing_alg_values_supported"`
}

func metadata(t *testing.T, answer Answer) oidcMetadata {
	t.Helper()
	Equal(t, "status", answer.Status, http.StatusOK)
	Equal(t, "content type", answer.Header.Get("Content-Type"), "application/json")
	Equal(t, "CORS", answer.Header.Get("Access-Control-Allow-Origin"), "*")
	var document oidcMetadata
	Must(t, json.Unmarshal([]byte(answer.Body), &document))
	return document
}

func oidcDocument(t *testing.T) {
	p := Start(t, Settings{}).Provide(t, nil, oidcPlain)
	document := metadata(t, p.Get(t, "oidc.test", oidcDiscovery, nil, nil))
	empty := ""
	Equal(t, "document", document, oidcMetadata{
		"https://oidc.test", "https://oidc.test/keys", &empty, []string{"id_token"}, []string{"public"}, []string{"RS256", "ES256", "ES384"},
	})
	Equal(t, "with a port", metadata(t, p.Get(t, "other.test:444", oidcDiscovery, nil, nil)).Issuer, "https://other.test:444")
	forwarded := http.Header{"X-Forwarded-Host": {"other.test"}}
	Equal(t, "by a proxy", metadata(t, p.Get(t, "10.0.0.1", oidcDiscovery, forwarded, nil)).Issuer, "https://other.test")
	for _, host := range []string{"evil.test", "OIDC.test", "127.0.0.1"} {
		answer := p.Get(t, host, oidcDiscovery, nil, nil)
		Equal(t, host, answer.Status, http.StatusBadRequest)
		True(t, answer.Body, strings.Contains(answer.Body, host) && strings.Contains(answer.Body, "is not allowed"))
	}
	Equal(t, "the keys ask for no host", p.Get(t, "evil.test", "/keys", nil, nil).Status == http.StatusBadRequest, false)
	Equal(t, "another path", p.Get(t, "oidc.test", "/", nil, nil).Status, http.StatusNotFound)
	for _, path := range []string{oidcDiscovery, "/keys"} {
		response, err := http.Post("http://"+p.Address+path, "text/plain", strings.NewReader("x"))
		Must(t, err)
		_ = response.Body.Close()
		Equal(t, "POST", response.StatusCode, http.StatusMethodNotAllowed)
	}
	refusedProvider(t, oidcListener+oidcSource, "domains")
	refusedProvider(t, "domains = [\"b\u00fccher.test\"]\n"+oidcListener+oidcSource, "punycode")
}

func oidcIssuer(t *testing.T) {
	s := Start(t, Settings{})
	issuer := `jwt_issuer = "https://issuer.test/td/"` + "\n"
	p := s.Provide(t, nil, oidcPlain+issuer)
	document := metadata(t, p.Get(t, "oidc.test", oidcDiscovery, nil, nil))
	Equal(t, "issuer", document.Issuer, "https://issuer.test/td/")
	Equal(t, "keys below the issuer", document.JWKSURI, "https://issuer.test/td/keys")
	p = s.Provide(t, nil, oidcPlain+issuer+`jwks_uri = "https://keys.test/x"`)
	Equal(t, "keys", metadata(t, p.Get(t, "oidc.test", oidcDiscovery, nil, nil)).JWKSURI, "https://keys.test/x")
	refusedProvider(t, oidcPlain+`jwt_issuer = "issuer.test"`, "jwt_issuer", "must contain a scheme")
	refusedProvider(t, oidcPlain+`jwt_issuer = "https:///x"`, "jwt_issuer", "must contain a host")
	refusedProvider(t, oidcPlain+`jwks_uri = "keys"`, "jwks_uri")
}

func oidcPathPrefix(t *testing.T) {
	p := Start(t, Settings{}).Provide(t, nil, oidcPlain+`server_path_prefix = "/instance/1"`)
	document := metadata(t, p.Get(t, "oidc.test", "/instance/1"+oidcDiscovery, nil, nil))
	Equal(t, "issuer", document.Issuer, "https://oidc.test/instance/1")
	Equal(t, "keys", document.JWKSURI, "https://oidc.test/instance/1/keys")
	Equal(t, "without it", p.Get(t, "oidc.test", oidcDiscovery, nil, nil).Status, http.StatusNotFound)
}

func oidcScheme(t *testing.T) {
	p := Start(t, Settings{}).Provide(t, nil, oidcPlain+"allow_insecure_scheme = true")
	Equal(t, "issuer", metadata(t, p.Get(t, "oidc.test", oidcDiscovery, nil, nil)).Issuer, "http://oidc.test")
	forwarded := http.Header{"X-Forwarded-Proto": {"https"}}
	Equal(t, "behind TLS", metadata(t, p.Get(t, "oidc.test", oidcDiscovery, forwarded, nil)).Issuer, "https://oidc.test")
	True(t, "a warning", strings.Contains(p.Process().Log(), "allow_insecure_scheme"))
}

// jwk is what clients read of a key.
type jwk struct{ Kty, Kid, Alg, Use, Crv string }

func jwks(t *testing.T, p *Provider) []jwk {
	t.Helper()
	var document struct{ Keys []jwk }
	Eventually(t, "keys", func() bool {
		answer := p.Get(t, "oidc.test", "/keys", nil, nil)
		return answer.Status == http.StatusOK && json.Unmarshal([]byte(answer.Body), &document) == nil
	})
	return document.Keys
}

func oidcKeys(t *testing.T) {
	for keyType, expected := range map[string]jwk{
		"ec-p256": {"EC", "", "ES256", "", "P-256"}, "ec-p384": {"EC", "", "ES384", "", "P-384"}, "rsa-2048": {"RSA", "", "RS256", "", ""},
	} {
		s := Start(t, Settings{Server: `jwt_key_type = "` + keyType + `"`})
		p := s.Provide(t, nil, oidcPlain)
		keys := jwks(t, p)
		Equal(t, "keys", len(keys), len(s.Bundle(t).JwtAuthorities))
		expected.Kid = s.Bundle(t).JwtAuthorities[0].KeyId
		Equal(t, keyType, keys[0], expected)
		answer := p.Get(t, "oidc.test", "/keys", nil, nil)
		for name, value := range map[string]string{
			"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache", "Expires": "0", "Access-Control-Allow-Origin": "*",
			"Content-Type": "application/json",
		} {
			Equal(t, name, answer.Header.Get(name), value)
		}
		since := http.Header{"If-Modified-Since": {answer.Header.Get("Last-Modified")}}
		Equal(t, "unchanged", p.Get(t, "oidc.test", "/keys", since, nil).Status, http.StatusNotModified)
	}
	p := Start(t, Settings{}).Provide(t, nil, oidcPlain+"set_key_use = true")
	Equal(t, "use", jwks(t, p)[0].Use, "sig")
}

func oidcServerAPI(t *testing.T) {
	s := Prepare(t, Settings{})
	p := s.Provide(t, nil, oidcPlain)
	Equal(t, "before the server is there", p.Get(t, "oidc.test", "/keys", nil, nil).Status, http.StatusInternalServerError)
	s.Boot(t)
	before := jwks(t, p)
	s.Run(t, "localauthority", "jwt", "prepare").Succeeds(t)
	Eventually(t, "the prepared key is shown", func() bool { return len(jwks(t, p)) == len(before)+1 })
	s.Stop()
	Equal(t, "the server is gone", len(jwks(t, p)), len(before)+1)
	refusedProvider(t, oidcDomains+oidcListener+`server_api { address = "dns:///x" }`, "server_api.address")

	off := Start(t, Settings{Server: "disable_jwt_svids = true"}).Provide(t, nil, oidcPlain)
	Eventually(t, "without JWT-SVIDs", func() bool { return off.Get(t, "oidc.test", "/keys", nil, nil).Status == http.StatusNotImplemented })
}

func oidcWorkloadAPI(t *testing.T) {
	s := Start(t, Settings{})
	s.WriteFile(t, "bundle.pem", s.Run(t, "bundle", "show").Succeeds(t).Out)
	node := "spiffe://" + TrustDomain + "/node"
	token := strings.TrimPrefix(strings.TrimSpace(s.Run(t, "token", "generate", "-spiffeID", node).Succeeds(t).Out), "Token: ")
	s.Run(t, "entry", "create", "-parentID", node, "-spiffeID", "spiffe://"+TrustDomain+"/oidc", "-selector", fmt.Sprintf("unix:uid:%d", os.Getuid())).Succeeds(t)
	host, port, err := net.SplitHostPort(s.Address)
	Must(t, err)
	config := s.WriteFile(t, "agent.conf", fmt.Sprintf(`agent {
    trust_domain = %q
    server_address = %q
    server_port = %s
    socket_path = "%[4]s/a/agent.sock"
    data_dir = "%[4]s/agent"
    trust_bundle_path = "%[4]s/bundle.pem"
}
plugins {
    KeyManager "memory" { plugin_data {} }
    NodeAttestor "join_token" { plugin_data {} }
    WorkloadAttestor "unix" { plugin_data {} }
}
`, TrustDomain, host, port, s.Dir))
	p := s.Provide(t, nil, oidcDomains+oidcListener+"workload_api {\n socket_path = \"{DIR}/a/agent.sock\"\n trust_domain = \"example.org\"\n poll_interval = \"1s\"\n}")
	Equal(t, "before the agent is there", p.Get(t, "oidc.test", "/keys", nil, nil).Status, http.StatusInternalServerError)
	agent := Launch(t, s.Dir, nil, filepath.Join(filepath.Dir(Binary()), "spindle-agent"), "run", "-config", config, "-joinToken", token)
	before := jwks(t, p)
	Equal(t, "key", before[0].Kid, s.Bundle(t).JwtAuthorities[0].KeyId)
	s.Run(t, "localauthority", "jwt", "prepare").Succeeds(t)
	Eventually(t, "the prepared key is shown", func() bool { return len(jwks(t, p)) == len(before)+1 })
	agent.Stop()
	Equal(t, "the agent is gone", len(jwks(t, p)), len(before)+1)
	refusedProvider(t, oidcDomains+oidcListener+`workload_api { socket_path = "/x" }`, "workload_api.trust_domain")
	refusedProvider(t, oidcDomains+oidcListener+`workload_api { trust_domain = "x.test" }`, "workload_api.socket_path")
}

func oidcFile(t *testing.T) {
	s := Start(t, Settings{})
	show := func() string { return s.Run(t, "bundle", "show", "-format", "spiffe").Succeeds(t).Out }
	s.WriteFile(t, "bundle.json", show())
	p := s.Provide(t, nil, oidcDomains+oidcListener+`file { path = "{DIR}/bundle.json" poll_interval = "100ms" }`)
	before := jwks(t, p)
	Equal(t, "key", before[0].Kid, s.Bundle(t).JwtAuthorities[0].KeyId)
	s.Run(t, "localauthority", "jwt", "prepare").Succeeds(t)
	s.WriteFile(t, "bundle.json", show())
	Eventually(t, "the changed file is shown", func() bool { return len(jwks(t, p)) == len(before)+1 })
}

func oidcSocket(t *testing.T) {
	s := Start(t, Settings{})
	p := s.Provide(t, nil, oidcDomains+oidcSource+`listen_socket_path = "{DIR}/oidc/oidc.sock"`)
	answer, err := GetFrom("unix", filepath.Join(p.Dir, "oidc", "oidc.sock"), "oidc.test", oidcDiscovery, nil, nil)
	Must(t, err)
	Equal(t, "issuer", metadata(t, answer).Issuer, "https://oidc.test")
}

// webCertificate writes a self-signed certificate of oidc.test, and returns what trusts it.
func webCertificate(t *testing.T, s *Server, serial int64) *tls.Config {
	t.Helper()
	key := NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"oidc.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	Must(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	Must(t, err)
	s.WriteFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	s.WriteFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	certificate, err := x509.ParseCertificate(der)
	Must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return &tls.Config{RootCAs: roots}
}

func oidcServingFiles(t *testing.T) {
	s := Start(t, Settings{})
	config := webCertificate(t, s, 1)
	p := s.Provide(t, nil, oidcDomains+oidcSource+"allow_insecure_scheme = true\nserving_cert_file { cert_file_path = \"{DIR}/cert.pem\"\n"+
		"key_file_path = \"{DIR}/key.pem\"\nfile_sync_interval = \"100ms\"\naddr = \"127.0.0.1:0\" }")
	Equal(t, "issuer", metadata(t, p.Get(t, "oidc.test", oidcDiscovery, nil, config)).Issuer, "https://oidc.test")
	next := webCertificate(t, s, 2)
	Eventually(t, "the new certificate is served", func() bool {
		_, err := p.TryGet("oidc.test", oidcDiscovery, nil, next)
		return err == nil
	})
	old := &tls.Config{RootCAs: next.RootCAs, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	Equal(t, "TLS 1.2", p.Get(t, "oidc.test", oidcDiscovery, nil, old).Status, http.StatusOK)
	block := func(text string) string { return oidcDomains + oidcSource + "serving_cert_file { " + text + " }" }
	refusedProvider(t, block(`key_file_path = "/k"`), "cert_file_path")
	refusedProvider(t, block(`cert_file_path = "/c"`), "key_file_path")
	refusedProvider(t, block(`cert_file_path = "/none/c" key_file_path = "/none/k"`), "/none/c")
}

func oidcHealth(t *testing.T) {
	s := Prepare(t, Settings{})
	port := FreePort(t)
	p := s.Provide(t, nil, oidcPlain+fmt.Sprintf("health_checks { bind_port = \"%d\" ready_path = \"/r\" live_path = \"/l\" }", port))
	status := func(path string) int {
		answer, err := GetFrom("tcp", fmt.Sprintf("127.0.0.1:%d", port), "localhost", path, nil, nil)
		Must(t, err)
		return answer.Status
	}
	p.Process().Await(t, "Serving health checks")
	Equal(t, "ready before keys", status("/r"), http.StatusInternalServerError)
	Equal(t, "live before keys", status("/l"), http.StatusOK)
	s.Boot(t)
	Eventually(t, "ready", func() bool { return status("/r") == http.StatusOK })
	s.Stop()
	Equal(t, "ready for a while after the server has gone", status("/r"), http.StatusOK)
	Equal(t, "another path", status("/ready"), http.StatusNotFound)
}

func oidcLogs(t *testing.T) {
	s := Start(t, Settings{})
	p := s.Provide(t, nil, oidcPlain+"log_requests = true\nlog_level = \"debug\"\nlog_format = \"JSON\"")
	p.Get(t, "oidc.test", "/keys?x=y", http.Header{"User-Agent": {"probe/1"}}, nil)
	p.Process().Await(t, "Incoming request")
	for line := range strings.Lines(p.Process().Log()) {
		if strings.Contains(line, "Incoming request") {
			var record map[string]any
			Must(t, json.Unmarshal([]byte(line), &record))
			Equal(t, "method", record["method"], any("GET"))
			Equal(t, "url", record["url"], any("/keys?x=y"))
			Equal(t, "user-agent", record["user-agent"], any("probe/1"))
			True(t, "remote-addr", record["remote-addr"] != nil)
		}
	}
	refusedProvider(t, oidcPlain+`log_level = "loud"`, "log_level")
}

func oidcUnknownKeys(t *testing.T) {
	for line, key := range map[string]string{
		"domain = []": "domain", `acme { mail = "x" }`: "acme", "health_checks { port = 1 }": "health_checks.port",
	} {
		refusedProvider(t, oidcPlain+line, key)
	}
	refusedProvider(t, oidcPlain+"log_levl = \"info\"", "did you mean log_level?")
}

func oidcExclusive(t *testing.T) {
	refusedProvider(t, oidcDomains+oidcSource, "acme, serving_cert_file, insecure_addr, listen_socket_path")
	refusedProvider(t, oidcDomains+oidcListener, "server_api, workload_api or file")
	refusedProvider(t, oidcPlain+`file { path = "/x" }`, "server_api", "file")
	refusedProvider(t, oidcPlain+`workload_api { socket_path = "/x" trust_domain = "x.test" }`, "server_api", "workload_api")
	refusedProvider(t, oidcPlain+`listen_socket_path = "/x"`, "insecure_addr", "listen_socket_path")
	refusedProvider(t, oidcPlain+`serving_cert_file { cert_file_path = "/c" key_file_path = "/k" }`, "serving_cert_file", "insecure_addr")
	refusedProvider(t, oidcPlain+`acme { email = "a@b.test" tos_accepted = true }`, "acme", "insecure_addr")
}

func oidcReload(t *testing.T) {
	s := Start(t, Settings{})
	p := s.Provide(t, nil, oidcPlain)
	s.WriteFile(t, "oidc.conf", strings.ReplaceAll(oidcPlain, "{SOCKET}", s.Socket)+"log_level = \"debug\"\nset_key_use = true\n")
	p.Process().Signal(t, syscall.SIGHUP)
	p.Process().Await(t, "set_key_use")
	p.Process().Await(t, "configuration reloaded")
	p.Process().Signal(t, syscall.SIGTERM)
	p.Process().Await(t, "stopping")
}
