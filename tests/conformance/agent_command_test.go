package conformance

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-CMD-EXIT_STATUS", agentExitStatus)
	holds("AGENT-CMD-RUN", agentRun)
	holds("AGENT-CMD-VALIDATE", agentValidate)
	holds("AGENT-CMD-HEALTHCHECK", agentHealthcheck)
	holds("AGENT-CMD-API-FETCH_X509", agentFetch)
	holds("AGENT-CMD-API-FETCH_JWT", agentFetchJWT)
	holds("AGENT-CMD-API-VALIDATE_JWT", agentValidateJWT)
	holds("AGENT-CMD-API-WATCH", agentWatch)
	holds("AGENT-CMD-DEBUG-GETINFO", agentDebug)
	holds("AGENT-CMD-LOGGER-GET", agentLoggerGet)
	holds("AGENT-CMD-LOGGER-SET", agentLoggerSet)
	holds("AGENT-CMD-LOGGER-RESET", agentLoggerReset)
	holds("AGENT-CMD-FLAGS", agentFlags)
	holds("AGENT-CMD-SOCKET", agentSocket)
}

func agentExitStatus(t *testing.T) {
	dir := t.TempDir()
	for _, arguments := range [][]string{nil, {"no-such-command"}} {
		if status := ExecuteAgent(t, dir, arguments...).Status; status != 127 {
			t.Errorf("%v: exit status %d, not 127", arguments, status)
		}
	}
	// A group of commands prints what it has.
	for _, group := range []string{"api", "debug", "logger"} {
		ExecuteAgent(t, dir, group).Fails(t, 1, group)
		ExecuteAgent(t, dir, group, "foo").Fails(t, 1, group)
	}
	ExecuteAgent(t, dir, "healthcheck", "-noSuchFlag").Fails(t, 1, "noSuchFlag")
	for _, words := range [][]string{
		{"api", "fetch"}, {"api", "fetch", "jwt", "-audience", "a"}, {"api", "validate", "jwt", "-audience", "a", "-svid", "b"},
		{"healthcheck"}, {"debug", "getinfo"}, {"logger", "get"}, {"logger", "set", "-level", "info"}, {"logger", "reset"},
	} {
		result := ExecuteAgent(t, dir, append(words, "-socketPath", filepath.Join(dir, "none.sock"))...)
		result.Fails(t, 1)
		True(t, "it is told where errors are told: "+result.String(), result.Out == "" && result.Err != "")
		isAdmin := words[0] == "debug" || words[0] == "logger"
		Equal(t, "whether it says Error: "+strings.Join(words, " "), strings.HasPrefix(result.Err, "Error: "), isAdmin)
	}
}

// agentRun starts an agent with as few lines in its file as can be, and every flag that is no setting of its own.
func agentRun(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{WithoutToken: true})
	agent.Token = server.JoinToken(t)
	agent.WriteFile(t, "agent.conf", "agent {}\nplugins {\n WorkloadAttestor \"unix\" { plugin_data {} }\n NodeAttestor \"join_token\" { plugin_data {} }\n KeyManager \"memory\" { plugin_data {} }\n}\n")
	agent.WriteFile(t, "token", agent.Token)
	host, port, _ := strings.Cut(server.Address, ":")
	agent.Boot(t, "-dataDir", filepath.Join(agent.Dir, "d"), "-joinTokenFile", filepath.Join(agent.Dir, "token"),
		"-logFile", filepath.Join(agent.Dir, "log"), "-logFormat", "json", "-logLevel", "DEBUG", "-logSourceLocation",
		"-serverAddress", host, "-serverPort", port, "-trustDomain", TrustDomain, "-socketPath", agent.Socket,
		"-trustBundle", filepath.Join(agent.Dir, "bundle.pem"), "-trustBundleFormat", "pem", "-allowUnauthenticatedVerifiers",
		"-disableSDSAPI", "-rebootstrapMode", "never", "-rebootstrapDelay", "10m", "-expandEnv")
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "/w")
	_, err := os.Stat(filepath.Join(agent.Dir, "log"))
	Must(t, err)
	wrong := PrepareAgent(t, server, AgentSettings{WithoutToken: true})
	wrong.Spawn(t, "-joinToken", "no-such-token")
	wrong.AwaitEnd(t)
}

func agentValidate(t *testing.T) {
	server := Start(t, Settings{})
	agent := PrepareAgent(t, server, AgentSettings{})
	agent.Validate(t).Succeeds(t, "SPIRE agent configuration file is valid.")
	agent.Validate(t, "-trustBundleUrl", "https://x/b").Fails(t, 1, "SPIRE agent configuration file is invalid", "trust_bundle")
	agent.Validate(t, "-rebootstrapMode", "sometimes").Fails(t, 1, "rebootstrap")
	_, err := os.Stat(filepath.Join(agent.Dir, "data"))
	True(t, "nothing is made", os.IsNotExist(err))
}

func agentHealthcheck(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	Equal(t, "what is printed", agent.Run(t, "healthcheck").Succeeds(t).Out, "Agent is healthy.\n")
	Equal(t, "what more is printed", agent.Run(t, "healthcheck", "-shallow", "-verbose").Succeeds(t).Out, "Checking agent health...\nAgent is healthy.\n")
	connection, err := grpc.NewClient("unix:"+agent.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	Must(t, err)
	defer connection.Close()
	health := grpc_health_v1.NewHealthClient(connection)
	answer, err := health.Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Must(t, err)
	Equal(t, "the status", answer.Status, grpc_health_v1.HealthCheckResponse_SERVING)
	_, err = health.Check(Context(t), &grpc_health_v1.HealthCheckRequest{Service: "SpiffeWorkloadAPI"})
	Refused(t, err, codes.InvalidArgument, "per-service health is not supported")
	_, err = health.List(Context(t), &grpc_health_v1.HealthListRequest{})
	Refused(t, err, codes.Unimplemented)
	agent.Stop()
	agent.Run(t, "healthcheck").Fails(t, 1, "Agent is unhealthy: ")
}

var goTime = `\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000 UTC`

// matches checks the whole output.
func matches(t *testing.T, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile("^" + pattern + "$").MatchString(text) {
		t.Errorf("not as it should be:\n%s\n%s", text, pattern)
	}
}

func agentFetch(t *testing.T) {
	server := Start(t, Settings{})
	setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{})
	agent.Run(t, "api", "fetch").Fails(t, 1, "no identity issued")
	agent.EntryFor(t, "/w", func(entry *types.Entry) { entry.Hint, entry.FederatesWith = "h", []string{"other.example"} })
	result := agent.AwaitFetch(t, "spiffe://example.org/w", "[spiffe://other.example]")
	validity := func(what string) string {
		return what + " Valid After:\t" + goTime + "\n" + what + " Valid Until:\t" + goTime + "\n"
	}
	matches(t, result.Out, `Received 1 svid after [0-9.]+(µs|ms|s)\n\nSPIFFE ID:\t\tspiffe://example\.org/w\nHint:\t\t\th\n`+
		validity("SVID")+validity("CA #1")+validity(`\[spiffe://other\.example\] CA #1`)+"\n")
	written := filepath.Join(agent.Dir, "out")
	Must(t, os.Mkdir(written, 0o755))
	result = agent.Run(t, "api", "fetch", "x509", "-silent", "-write", written, "-timeout", "20s").Succeeds(t)
	expected := ""
	for what, name := range map[string]string{"SVID #0": "svid.0.pem", "key #0": "svid.0.key", "bundle #0": "bundle.0.pem", "federated bundle #0 for trust domain spiffe://other.example": "federated_bundle.0.0.pem"} {
		expected = fmt.Sprintf("Writing %s to file %s.\n", what, filepath.Join(written, name))
		True(t, expected, strings.Contains(result.Out, expected))
		mode := os.FileMode(0o644)
		if strings.HasPrefix(what, "key") {
			mode = 0o600
		}
		hasMode(t, filepath.Join(written, name), mode)
	}
	Equal(t, "the lines", strings.Count(result.Out, "\n"), 4)
	document := agent.Run(t, "api", "fetch", "x509", "-output", "json", "-write", filepath.Join(agent.Dir, "none")).JSON(t)
	Equal(t, "the ID in JSON", At(document, "svids", 0, "spiffe_id"), any("spiffe://example.org/w"))
	Equal(t, "the hint in JSON", At(document, "svids", 0, "hint"), any("h"))
	for _, name := range []string{"x509_svid", "x509_svid_key", "bundle"} {
		text, _ := At(document, "svids", 0, name).(string)
		_, err := base64.StdEncoding.DecodeString(text)
		True(t, name+" is base64", err == nil && text != "")
	}
	True(t, "the foreign bundle in JSON", At(document, "federated_bundles", "spiffe://other.example") != nil)
	Equal(t, "nothing is revoked", At(document, "crl"), any([]any{}))
}

func agentFetchJWT(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{})
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "/w")
	agent.Run(t, "api", "fetch", "jwt").Fails(t, 1, "audience")
	agent.Run(t, "api", "fetch", "jwt", "-audience", "a,b", "-spiffeID", "spiffe://example.org/w").
		Succeeds(t, "token(spiffe://example.org/w):", "bundle(spiffe://example.org):", `"keys"`)
	document := agent.Run(t, "api", "fetch", "jwt", "-audience", "a", "-output", "json").JSON(t)
	Equal(t, "the ID in JSON", At(document, 0, "svids", 0, "spiffe_id"), any("spiffe://example.org/w"))
	True(t, "there is a bundle in JSON", At(document, 1, "bundles", "spiffe://example.org") != nil)
	Equal(t, "under the old name of the flag", agent.Run(t, "api", "fetch", "jwt", "-audience", "a", "-format", "json").JSON(t), any(document))
	agent.Run(t, "api", "fetch", "jwt", "-audience", "a", "-spiffeID", "spiffe://example.org/other").Fails(t, 1, "no identity issued")
	document = agent.Run(t, "api", "fetch", "jwt", "-audience", "b,a,b", "-output", "json").JSON(t)
	token, _ := At(document, 0, "svids", 0, "svid").(string)
	if !StockAgent() {
		_, body := claims(t, server, token)
		Equal(t, "the audience", body["aud"], any([]any{"a", "b"}))
	}
}

func agentValidateJWT(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "/w")
	document := agent.Run(t, "api", "fetch", "jwt", "-audience", "a", "-output", "json").JSON(t)
	token, _ := At(document, 0, "svids", 0, "svid").(string)
	agent.Run(t, "api", "validate", "jwt", "-audience", "a", "-svid", token).
		Succeeds(t, "SVID is valid.", "SPIFFE ID : spiffe://example.org/w", "Claims    : {")
	answer := agent.Run(t, "api", "validate", "jwt", "-audience", "a", "-svid", token, "-output", "json").JSON(t)
	Equal(t, "the ID in JSON", At(answer, "spiffe_id"), any("spiffe://example.org/w"))
	Equal(t, "a claim in JSON", At(answer, "claims", "aud", 0), any("a"))
	agent.Run(t, "api", "validate", "jwt", "-audience", "b", "-svid", token).Fails(t, 1, "SVID is not valid: ")
	agent.AwaitLog(t, "Failed to validate JWT")
	agent.Run(t, "api", "validate", "jwt", "-audience", "a").Fails(t, 1, "svid must be specified")
	agent.Run(t, "api", "validate", "jwt", "-svid", token).Fails(t, 1, "audience must be specified")
}

func agentWatch(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "/w")
	watch := SpawnAgent(t, agent, "api", "watch")
	watch.AwaitLog(t, "spiffe://example.org/w")
	agent.Register(t, "/second")
	watch.AwaitLog(t, "spiffe://example.org/second")
}

// admin runs a command on the agent's admin socket.
func admin(t *testing.T, agent *AgentProcess, words ...string) Result {
	t.Helper()
	return ExecuteAgent(t, agent.Dir, append(words, "-socketPath", agent.AdminSocket())...)
}

func agentDebug(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine})
	rfc3339 := `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
	link := func(number int, id string) string {
		return fmt.Sprintf(`    \[%d\] SPIFFE ID:  %s\n        Subject:    [^\n]+\n        Expires At: %s\n`, number, id, rfc3339)
	}
	matches(t, admin(t, agent, "debug", "getinfo").Succeeds(t).Out, `Agent Debug Info:\n  Uptime:                          [0-9]+s\n`+
		`  Last Sync Success:               `+rfc3339+`\n  Cached X\.509 SVIDs:              0\n  Cached JWT SVIDs:                0\n`+
		`  Cached SVID Store X\.509 SVIDs:   0\n  SVID Chain:\n`+link(0, "spiffe://example.org/spire/agent/join_token/"+agent.Token)+link(1, "spiffe://example.org"))
	document := admin(t, agent, "debug", "getinfo", "-output", "json").JSON(t)
	Equal(t, "the path in JSON", At(document, "svid_chain", 0, "id", "path"), any("/spire/agent/join_token/"+agent.Token))
	_, isText := At(document, "last_sync_success").(string)
	True(t, "64 bits are a text", isText)
	Equal(t, "a count in JSON", At(document, "cached_x509_svids_count"), any(0.0))
}

func loggerLines(current, launch string) string {
	return fmt.Sprintf("Logger Level : %s\nLaunch Level : %s\n\n", current, launch)
}

func agentLoggerGet(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine})
	Equal(t, "both levels", admin(t, agent, "logger", "get").Succeeds(t).Out, loggerLines("debug", "debug"))
	document := admin(t, agent, "logger", "get", "-output", "json").JSON(t)
	Equal(t, "in JSON", document, any(map[string]any{"current_level": "DEBUG", "launch_level": "DEBUG"}))
}

func agentLoggerSet(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine})
	for given, shown := range map[string]string{"panic": "panic", "fatal": "fatal", "error": "error", "warn": "warning", "INFO": "info", "debug": "debug", "trace": "trace"} {
		Equal(t, given, admin(t, agent, "logger", "set", "-level", given).Succeeds(t).Out, loggerLines(shown, "debug"))
	}
	admin(t, agent, "logger", "set").Fails(t, 1, "level")
	admin(t, agent, "logger", "set", "-level", "loud").Fails(t, 1, "loud")
	Equal(t, "in JSON", admin(t, agent, "logger", "set", "-level", "warn", "-output", "json").JSON(t), any(map[string]any{"current_level": "WARN", "launch_level": "DEBUG"}))
}

func agentLoggerReset(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine})
	admin(t, agent, "logger", "set", "-level", "error").Succeeds(t)
	Equal(t, "the level of the start", admin(t, agent, "logger", "reset").Succeeds(t).Out, loggerLines("debug", "debug"))
}

// agentFlags writes flags in all forms of Go's library, and asks each command for the flags that SPIRE's has.
func agentFlags(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	for _, form := range [][]string{{"-socketPath", agent.Socket}, {"--socketPath", agent.Socket}, {"-socketPath=" + agent.Socket}, {"--socketPath=" + agent.Socket}} {
		ExecuteAgent(t, agent.Dir, append([]string{"healthcheck"}, form...)...).Succeeds(t)
	}
	ExecuteAgent(t, agent.Dir, "healthcheck", "-verbose=false", "-socketPath", agent.Socket).Succeeds(t)
	run := []string{
		"config", "dataDir", "joinToken", "joinTokenFile", "logFile", "logFormat", "logLevel", "logSourceLocation", "serverAddress", "serverPort",
		"trustDomain", "disableWorkloadAPI", "disableSDSAPI", "trustBundle", "trustBundleUrl", "trustBundleFormat", "allowUnauthenticatedVerifiers",
		"insecureBootstrap", "rebootstrapMode", "rebootstrapDelay", "expandEnv", "socketPath",
	}
	for command, flags := range map[string][]string{
		"run": run, "validate": run,
		"healthcheck":      {"socketPath", "instance", "shallow", "verbose"},
		"api fetch":        {"socketPath", "instance", "timeout", "silent", "write", "output"},
		"api fetch x509":   {"socketPath", "instance", "timeout", "silent", "write", "output"},
		"api fetch jwt":    {"socketPath", "instance", "timeout", "audience", "spiffeID", "output"},
		"api validate jwt": {"socketPath", "instance", "timeout", "audience", "svid", "output"},
		"api watch":        {"socketPath", "instance"},
		"debug getinfo":    {"socketPath", "output"},
		"logger get":       {"socketPath", "output"},
		"logger set":       {"socketPath", "output", "level"},
		"logger reset":     {"socketPath", "output"},
	} {
		usage := ExecuteAgent(t, agent.Dir, append(strings.Fields(command), "-h")...)
		for _, flag := range flags {
			True(t, command+" has -"+flag, strings.Contains(usage.Out+usage.Err, "-"+flag))
		}
		if slices.Contains(flags, "timeout") {
			True(t, command+" waits for five seconds", strings.Contains(usage.Out+usage.Err, "5s"))
		}
	}
}

// agentSocket names the public socket in SPIRE's four ways.
func agentSocket(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	check := func(environment []string, flags ...string) Result {
		return ExecuteBinary(t, AgentBinary(), agent.Dir, environment, "", append([]string{"healthcheck"}, flags...)...)
	}
	name, template := filepath.Base(filepath.Dir(agent.Socket)), filepath.Join(filepath.Dir(filepath.Dir(agent.Socket)), "%i", "api.sock")
	check([]string{"SPIRE_AGENT_PUBLIC_SOCKET=" + agent.Socket}).Succeeds(t)
	check([]string{"SPIRE_AGENT_PUBLIC_SOCKET=/nonexistent"}, "-socketPath", agent.Socket).Succeeds(t)
	check([]string{"SPIRE_AGENT_PUBLIC_SOCKET=/nonexistent", "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE=" + template}, "-instance", name).Succeeds(t)
	check(nil, "-instance", name).Fails(t, 1, "SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE")
	check([]string{"SPIRE_AGENT_PUBLIC_SOCKET_TEMPLATE=/without"}, "-instance", name).Fails(t, 1, "%i")
	check([]string{"SPIRE_AGENT_PUBLIC_SOCKET=/nonexistent"}).Fails(t, 1)
}
