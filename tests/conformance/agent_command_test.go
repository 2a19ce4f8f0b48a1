package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
}

func agentExitStatus(t *testing.T) {
	dir := t.TempDir()
	for _, arguments := range [][]string{nil, {"no-such-command"}} {
		if status := ExecuteAgent(t, dir, arguments...).Status; status != 127 {
			t.Errorf("%v: exit status %d, not 127", arguments, status)
		}
	}
	ExecuteAgent(t, dir, "api", "foo").Fails(t, 1, "api")
	ExecuteAgent(t, dir, "healthcheck", "-noSuchFlag").Fails(t, 1, "noSuchFlag")
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
	agent.Run(t, "healthcheck").Succeeds(t, "Agent is healthy.")
	agent.Run(t, "healthcheck", "-shallow", "-verbose").Succeeds(t, "Checking agent health...", "Agent is healthy.")
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
	agent.Run(t, "healthcheck").Fails(t, 1, "Agent is unhealthy")
}

func agentFetch(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	agent.Run(t, "api", "fetch").Fails(t, 1)
	agent.Register(t, "/w")
	agent.AwaitFetch(t, "Received 1 svid", "SPIFFE ID:", "spiffe://example.org/w", "SVID Valid After:", "SVID Valid Until:", "CA #1 Valid After:")
	written := filepath.Join(agent.Dir, "out")
	Must(t, os.Mkdir(written, 0o755))
	agent.Run(t, "api", "fetch", "x509", "-silent", "-write", written, "-timeout", "20s").Succeeds(t)
	for _, name := range []string{"svid.0.pem", "svid.0.key", "bundle.0.pem"} {
		_, err := os.Stat(filepath.Join(written, name))
		Must(t, err)
	}
	document := agent.Run(t, "api", "fetch", "x509", "-output", "json").JSON(t)
	Equal(t, "the ID in JSON", At(document, "svids", 0, "spiffe_id"), any("spiffe://example.org/w"))
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
	agent.Run(t, "api", "validate", "jwt", "-audience", "b", "-svid", token).Fails(t, 1)
	agent.AwaitLog(t, "Failed to validate JWT")
	agent.Run(t, "api", "validate", "jwt", "-audience", "a").Fails(t, 1, "svid")
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
