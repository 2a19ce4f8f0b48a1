package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "spindle-conformance/harness"
)

func init() {
	holds("CMD-EXIT_STATUS", exitStatus)
	holds("CMD-FLAGS", flagStyles)
	holds("CMD-OUTPUT", outputForms)
	holds("CMD-SOCKET", sockets)
	holds("CMD-RUN", runCommand)
	holds("CMD-VALIDATE", validateCommand)
	holds("CMD-HEALTHCHECK", healthcheckCommand)
	holds("CMD-TOKEN-GENERATE", tokenGenerate)
	holds("CMD-X509-MINT", x509Mint)
	holds("CMD-JWT-MINT", jwtMint)
	holds("CMD-WIT-MINT", witMint)
	holds("CMD-LOGGER-GET", loggerGet)
	holds("CMD-LOGGER-SET", loggerSet)
	holds("CMD-LOGGER-RESET", loggerReset)
	holds("CMD-DEBUG-GETINFO", debugGetInfo)
}

func exitStatus(t *testing.T) {
	s := Start(t, Settings{})
	for _, arguments := range [][]string{nil, {"no-such-command"}} {
		if status := Execute(t, s.Dir, nil, "", arguments...).Status; status != 127 {
			t.Errorf("%v: exit status %d, not 127", arguments, status)
		}
	}
	for _, arguments := range [][]string{{"entry"}, {"entry", "foo"}, {"bundle", "foo"}} {
		result := Execute(t, s.Dir, nil, "", arguments...)
		result.Fails(t, 1, arguments[0])
	}
	s.Run(t, "entry", "count").Succeeds(t)
	s.Run(t, "entry", "count", "-noSuchFlag").Fails(t, 1, "noSuchFlag")
	s.Run(t, "entry", "delete", "-entryID", "none").Fails(t, 1, "none", "NotFound")
	result := Execute(t, s.Dir, nil, "", "entry", "count", "-socketPath", filepath.Join(s.Dir, "nobody.sock"))
	result.Fails(t, 1, "Error: ")
	True(t, "errors go to standard error", strings.Contains(result.Err, "Error: ") && result.Out == "")
}

func flagStyles(t *testing.T) {
	s := Start(t, Settings{})
	for number, style := range [][]string{{"-spiffeID", "{}"}, {"--spiffeID", "{}"}, {"-spiffeID={}"}, {"--spiffeID={}"}} {
		path := fmt.Sprintf("spiffe://example.org/w%d", number)
		arguments := []string{"entry", "create", "-parentID", "spiffe://example.org/n", "-selector", "a:1", "-selector", "b:2", "-downstream=false"}
		for _, part := range style {
			arguments = append(arguments, strings.ReplaceAll(part, "{}", path))
		}
		result := s.Run(t, arguments...).Succeeds(t, path, "a:1", "b:2")
		True(t, "a flag set to false is off", !strings.Contains(result.Out, "Downstream"))
	}
}

func outputForms(t *testing.T) {
	s := Start(t, Settings{})
	made := s.Run(t, "entry", "create", "-parentID", "spiffe://example.org/n", "-spiffeID", "spiffe://example.org/w", "-selector", "a:b:c", "-output", "json").JSON(t)
	entry := At(made, "results", 0, "entry")
	Equal(t, "the path of the ID", At(entry, "spiffe_id", "path"), any("/w"))
	Equal(t, "a 32-bit number", At(entry, "x509_svid_ttl"), any(0.0))
	Equal(t, "a 64-bit number", At(entry, "revision_number"), any("0"))
	Equal(t, "an unset list", At(entry, "dns_names"), any([]any{}))
	Equal(t, "an unset flag", At(entry, "admin"), any(false))
	Equal(t, "a selector's value", At(entry, "selectors", 0, "value"), any("b:c"))
	Equal(t, "the code of a success", At(made, "results", 0, "status", "code"), any(0.0))
	Equal(t, "the text of a success", At(made, "results", 0, "status", "message"), any("OK"))
	again := s.Run(t, "entry", "create", "-parentID", "spiffe://example.org/n", "-spiffeID", "spiffe://example.org/w", "-selector", "a:b:c", "-output", "json").JSON(t)
	Equal(t, "the code of a failure, for which the exit status is 0,", At(again, "results", 0, "status", "code"), any(6.0))
	s.Run(t, "entry", "show", "-output", "xml").Fails(t, 1, "xml")
}

func sockets(t *testing.T) {
	s := Start(t, Settings{})
	count := func(environment []string, arguments ...string) Result {
		return Execute(t, s.Dir, environment, "", append([]string{"entry", "count"}, arguments...)...)
	}
	template := "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE=" + strings.Replace(s.Socket, "/s/", "/%i/", 1)
	count([]string{"SPIRE_SERVER_PRIVATE_SOCKET=" + s.Socket}).Succeeds(t, "0 registration entries")
	count([]string{template}, "-instance", "s").Succeeds(t, "0 registration entries")
	count([]string{"SPIRE_SERVER_PRIVATE_SOCKET=/none", template}, "-instance", "s").Succeeds(t)
	count([]string{"SPIRE_SERVER_PRIVATE_SOCKET=/none"}, "-socketPath", s.Socket).Succeeds(t)
	count(nil, "-instance", "s").Fails(t, 1, "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE")
	count([]string{"SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE=/x"}, "-instance", "s").Fails(t, 1, "%i")
}

func runCommand(t *testing.T) {
	s := Prepare(t, Settings{Server: `log_format = "text"`})
	s.Boot(t, "-logFormat", "json", "-trustDomain", "flag.example", "-dataDir", filepath.Join(s.Dir, "other"))
	True(t, "the format of the flag wins", strings.Contains(s.Log(), `"msg":"Starting Server APIs"`))
	s.Run(t, "bundle", "show", "-format", "spiffe").Succeeds(t, "spiffe_sequence")
	Equal(t, "the trust domain of the flag", s.Bundle(t).TrustDomain, "flag.example")
	s.Stop()
	Execute(t, s.Dir, nil, "", "run").Fails(t, 1)
	// Without -config it reads the file of this name.
	Must(t, os.MkdirAll(filepath.Join(s.Dir, "conf", "server"), 0o755))
	s.WriteFile(t, "conf/server/server.conf", "server {\n trust_domain = \"example.org\"\n}\nplugins {}\n")
	Execute(t, s.Dir, nil, "", "run").Fails(t, 1, "data_dir")
	Execute(t, s.Dir, nil, "", "run", "-config", s.ConfigPath, "-logLevel", "loud").Fails(t, 1, "loud")
}

func validateCommand(t *testing.T) {
	s := Prepare(t, Settings{})
	validate := func(flags ...string) Result {
		return Execute(t, s.Dir, nil, "", append([]string{"validate", "-config", s.ConfigPath}, flags...)...)
	}
	validate().Succeeds(t, "SPIRE server configuration file is valid.")
	_, err := os.Stat(filepath.Join(s.Dir, "data", "store"))
	True(t, "nothing is started", os.IsNotExist(err))
	s.WriteConfig(t, Settings{Server: `unknown_key = 1`})
	validate().Fails(t, 1, "SPIRE server configuration file is invalid", "unknown")
	s.WriteConfig(t, Settings{Server: `ca_ttl = "soon"`})
	validate().Fails(t, 1, "soon")
	s.WriteConfig(t, Settings{Plugins: `UpstreamAuthority "no_such_plugin" { plugin_data {} }`})
	validate().Fails(t, 1, "no_such_plugin")
	s.WriteFile(t, "server.conf", "server {")
	validate().Fails(t, 1, "invalid")
	Execute(t, s.Dir, nil, "", "validate", "-config", filepath.Join(s.Dir, "none.conf")).Fails(t, 1, "none.conf")
}

func healthcheckCommand(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "healthcheck").Succeeds(t, "Server is healthy.")
	s.Run(t, "healthcheck", "-shallow", "-verbose").Succeeds(t, "Checking server health", "Server is healthy.")
	s.Stop()
	s.Run(t, "healthcheck").Fails(t, 1)
}

func tokenGenerate(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "token", "generate").Succeeds(t, "Token: ", "Warning: Missing SPIFFE ID.")
	result := s.Run(t, "token", "generate", "-spiffeID", "spiffe://example.org/node", "-ttl", "60").Succeeds(t, "Token: ")
	True(t, "no warning with an ID", !strings.Contains(result.Out, "Warning"))
	s.Run(t, "entry", "show", "-spiffeID", "spiffe://example.org/node").Succeeds(t, "Found 1 entry", "spiffe://example.org/spire/agent/join_token/")
	made := s.Run(t, "token", "generate", "-output", "json").JSON(t)
	value, _ := At(made, "value").(string)
	Equal(t, "the length of the token", len(value), 36)
	_, isText := At(made, "expires_at").(string)
	True(t, "the expiry is a text", isText)
	s.Run(t, "token", "generate", "-ttl", "0").Fails(t, 1, "ttl")
	s.Run(t, "token", "generate", "-spiffeID", "spiffe://other.example/x").Fails(t, 1)
}

func x509Mint(t *testing.T) {
	s := Start(t, Settings{})
	mint := func(more ...string) Result {
		return s.Run(t, append([]string{"x509", "mint", "-spiffeID", "spiffe://example.org/w"}, more...)...)
	}
	mint().Succeeds(t, "X509-SVID:", "Private key:", "Root CAs:", "-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----")
	made := mint("-dns", "a.example", "-dns", "b.example", "-ttl", "90s", "-output", "json").JSON(t)
	for _, key := range []string{"x509_svid", "private_key", "root_cas"} {
		True(t, key+" is in the JSON", At(made, key) != nil)
	}
	dir := filepath.Join(s.Dir, "minted")
	Must(t, os.Mkdir(dir, 0o755))
	mint("-write", dir).Succeeds(t, "X509-SVID written to "+dir+"/svid.pem", "Private key written to "+dir+"/key.pem", "Root CAs written to "+dir+"/bundle.pem")
	about, err := os.Stat(filepath.Join(dir, "key.pem"))
	Must(t, err)
	Equal(t, "who may read the key", about.Mode().Perm(), os.FileMode(0o600))
	result := mint("-ttl", "999h").Succeeds(t)
	True(t, "a lifetime that was capped is warned of", strings.Contains(result.Err, "X509-SVID lifetime was capped shorter than specified ttl"))
	result = mint("-ttl", "90s").Succeeds(t)
	if !Stock() {
		True(t, "no warning when it was not", !strings.Contains(result.Err, "capped"))
	}
	s.Run(t, "x509", "mint").Fails(t, 1, "spiffeID")
	mint("-dns", "a..b").Fails(t, 1)
}

func jwtMint(t *testing.T) {
	s := Start(t, Settings{})
	mint := func(more ...string) Result {
		return s.Run(t, append([]string{"jwt", "mint", "-spiffeID", "spiffe://example.org/w"}, more...)...)
	}
	result := mint("-audience", "one").Succeeds(t)
	token := strings.TrimSpace(result.Out)
	_, body := claims(t, s, token)
	Equal(t, "the subject", body["sub"], any("spiffe://example.org/w"))
	made := mint("-audience", "one", "-audience", "two", "-ttl", "90s", "-output", "json").JSON(t)
	token, _ = At(made, "svid", "token").(string)
	_, body = claims(t, s, token)
	Equal(t, "the audience", body["aud"], any([]any{"one", "two"}))
	Equal(t, "the lifetime", number(body["exp"])-number(body["iat"]), int64(90))
	Equal(t, "the ID", At(made, "svid", "id", "path"), any("/w"))
	path := filepath.Join(s.Dir, "token.jwt")
	mint("-audience", "one", "-write", path).Succeeds(t, "JWT-SVID written to "+path)
	written, err := os.ReadFile(path)
	Must(t, err)
	claims(t, s, strings.TrimSpace(string(written)))
	s.Run(t, "jwt", "mint", "-audience", "one").Fails(t, 1, "spiffeID")
	mint().Fails(t, 1, "at least one audience")
}

func witMint(t *testing.T) {
	s := Start(t, witSVIDs)
	mint := func(more ...string) Result {
		arguments := append([]string{"wit", "mint", "-spiffeID", "spiffe://example.org/w", "-socketPath", s.Socket}, more...)
		// SPIRE has the command only when this is set.
		return Execute(t, s.Dir, []string{"SPIRE_SERVER_FFLAGS=wit-svid"}, "", arguments...)
	}
	key := func(text string) map[string]any {
		var jwk map[string]any
		Must(t, json.Unmarshal([]byte(text), &jwk))
		return jwk
	}
	lines := strings.Split(strings.TrimSpace(mint().Succeeds(t).Out), "\n")
	Equal(t, "the number of lines", len(lines), 2)
	_, body := witClaims(t, s, lines[0])
	Equal(t, "the subject", body["sub"], any("spiffe://example.org/w"))
	for _, member := range []string{"kty", "crv", "x", "y"} {
		Equal(t, member+" of the key", key(lines[1])[member], At(body, "cnf", "jwk", member))
	}
	True(t, "the key is private", key(lines[1])["d"] != nil && At(body, "cnf", "jwk", "d") == nil)
	made := mint("-ttl", "90s", "-keyType", "rsa-2048", "-signingAlgorithm", "PS256", "-output", "json").JSON(t)
	token, _ := At(made, "svid", "token").(string)
	_, body = witClaims(t, s, token)
	Equal(t, "the lifetime", number(body["exp"])-number(body["iat"]), int64(90))
	Equal(t, "the algorithm", At(body, "cnf", "jwk", "alg"), any("PS256"))
	Equal(t, "the ID", At(made, "svid", "id", "path"), any("/w"))
	private, _ := At(made, "private_key").(string)
	Equal(t, "the modulus of the key", key(private)["n"], At(body, "cnf", "jwk", "n"))
	dir := filepath.Join(s.Dir, "wit")
	Must(t, os.Mkdir(dir, 0o755))
	mint("-write", dir).Succeeds(t, "WIT-SVID written to "+dir+"/token", "Private key written to "+dir+"/key")
	written, err := os.ReadFile(filepath.Join(dir, "token"))
	Must(t, err)
	witClaims(t, s, string(written))
	mint("-signingAlgorithm", "ES384").Fails(t, 1, "unsupported key type")
	mint("-signingAlgorithm", "HS256").Fails(t, 1, "unsupported signing algorithm: HS256")
	if !Stock() {
		off := Start(t, Settings{})
		off.Run(t, "wit", "mint", "-spiffeID", "spiffe://example.org/w").Fails(t, 1, "WIT functionality is disabled")
	}
}

func loggerGet(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "logger", "get").Succeeds(t, "Logger Level : debug", "Launch Level : debug")
	made := s.Run(t, "logger", "get", "-output", "json").JSON(t)
	Equal(t, "the level", At(made, "current_level"), any("DEBUG"))
	Equal(t, "the level at the start", At(made, "launch_level"), any("DEBUG"))
}

func loggerSet(t *testing.T) {
	s := Start(t, Settings{})
	for _, level := range []string{"panic", "fatal", "error", "warn", "info", "debug", "trace"} {
		shown := map[string]string{"warn": "warning"}[level]
		if shown == "" {
			shown = level
		}
		s.Run(t, "logger", "set", "-level", level).Succeeds(t, "Logger Level : "+shown, "Launch Level : debug")
	}
	s.Run(t, "logger", "set", "-level", "loud").Fails(t, 1, "loud")
	s.Run(t, "logger", "set").Fails(t, 1, "level")
}

func loggerReset(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "logger", "set", "-level", "error").Succeeds(t, "Logger Level : error")
	s.Run(t, "logger", "reset").Succeeds(t, "Logger Level : debug")
}

func debugGetInfo(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "debug", "getinfo").Succeeds(t, "Server Debug Info:", "Uptime:", "Registered Agents:       0", "Registration Entries:    0",
		"Federated Bundles:       1", "SVID Chain:", "[0] SPIFFE ID:  spiffe://example.org/spire/server", "Subject:", "Expires At: ")
	made := s.Run(t, "debug", "getinfo", "-output", "json").JSON(t)
	Equal(t, "the number of entries", At(made, "entries_count"), any(0.0))
	Equal(t, "the ID in the chain", At(made, "svid_chain", 0, "id", "path"), any("/spire/server"))
}
