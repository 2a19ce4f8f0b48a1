package conformance

import (
	"slices"
	"testing"

	debugv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/debug/v1"
	delegatedv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	loggerv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/logger/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-WIRE-SERVICES", agentServices)
	holds("AGENT-RPC-DEBUG-GET_INFO", agentGetInfo)
	holds("AGENT-RPC-LOGGER-GET", agentGetLogger)
	holds("AGENT-RPC-LOGGER-SET", agentSetLogLevel)
	holds("AGENT-RPC-LOGGER-RESET", agentResetLogLevel)
	holds("AGENT-RPC-HEALTH-CHECK", agentCheckHealth)
	holds("AGENT-RPC-HEALTH-WATCH", agentWatchHealth)
	absent("AGENT-RPC-HEALTH-LIST", agentListHealth)
	holds("AGENT-RPC-REFLECTION", agentReflection)
}

// agentServices calls services on the socket that they do not belong on.
func agentServices(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine})
	public, admin := agent.Public(t), agent.Admin(t)
	_, err := debugv1.NewDebugClient(public).GetInfo(Context(t), &debugv1.GetInfoRequest{})
	Refused(t, err, codes.Unimplemented)
	_, err = loggerv1.NewLoggerClient(public).GetLogger(Context(t), &loggerv1.GetLoggerRequest{})
	Refused(t, err, codes.Unimplemented)
	_, err = delegatedv1.NewDelegatedIdentityClient(public).FetchJWTSVIDs(Context(t), &delegatedv1.FetchJWTSVIDsRequest{Audience: []string{"a"}})
	Refused(t, err, codes.Unimplemented)
	_, err = grpc_health_v1.NewHealthClient(admin).Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Refused(t, err, codes.Unimplemented)
	Refused(t, admin.Invoke(AsWorkload(t), "/SpiffeWorkloadAPI/FetchJWTSVID", &debugv1.GetInfoRequest{}, &debugv1.GetInfoResponse{}), codes.Unimplemented)
	Refused(t, public.Invoke(AsWorkload(t), "/SpiffeWorkloadAPI/Quux", &debugv1.GetInfoRequest{}, &debugv1.GetInfoResponse{}), codes.Unimplemented)
}

func agentGetInfo(t *testing.T) {
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{Agent: AdminLine})
	client := debugv1.NewDebugClient(agent.Admin(t))
	agent.EntryFor(t, "/a", nil)
	agent.EntryFor(t, "/b", nil)
	agent.AwaitFetch(t, "/a", "/b")
	agent.Run(t, "api", "fetch", "jwt", "-audience", "x").Succeeds(t)
	var info *debugv1.GetInfoResponse
	Eventually(t, "what is there is counted", func() bool {
		var err error
		info, err = client.GetInfo(Context(t), &debugv1.GetInfoRequest{})
		Must(t, err)
		return info.CachedX509SvidsCount == 2 && info.CachedJwtSvidsCount == 2
	})
	Equal(t, "in the old field, too", info.SvidsCount, int32(2)) //nolint:staticcheck
	Equal(t, "SVIDs in stores", info.CachedSvidstoreX509SvidsCount, int32(0))
	True(t, "there was a sync", info.LastSyncSuccess > 0)
	Equal(t, "the chain ends at the authority", len(info.SvidChain), 2)
	Equal(t, "the agent's ID", Uri(info.SvidChain[0].Id), "spiffe://example.org/spire/agent/join_token/"+agent.Token)
	Equal(t, "the authority's", Uri(info.SvidChain[1].Id), "spiffe://example.org")
	for _, link := range info.SvidChain {
		True(t, "expiry and subject", link.ExpiresAt > 0 && link.Subject != "")
	}
}

func agentLogger(t *testing.T, flags ...string) loggerv1.LoggerClient {
	t.Helper()
	return loggerv1.NewLoggerClient(StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: AdminLine}, flags...).Admin(t))
}

func agentGetLogger(t *testing.T) {
	logger, err := agentLogger(t, "-logLevel", "info").GetLogger(Context(t), &loggerv1.GetLoggerRequest{})
	Must(t, err)
	True(t, "both levels", logger.CurrentLevel == types.LogLevel_INFO && logger.LaunchLevel == types.LogLevel_INFO)
}

func agentSetLogLevel(t *testing.T) {
	client := agentLogger(t)
	for _, level := range []types.LogLevel{types.LogLevel_PANIC, types.LogLevel_FATAL, types.LogLevel_ERROR, types.LogLevel_WARN, types.LogLevel_INFO, types.LogLevel_DEBUG, types.LogLevel_TRACE} {
		logger, err := client.SetLogLevel(Context(t), &loggerv1.SetLogLevelRequest{NewLevel: level})
		Must(t, err)
		Equal(t, "the level", logger.CurrentLevel, level)
		Equal(t, "the level at the start", logger.LaunchLevel, types.LogLevel_DEBUG)
	}
	for _, level := range []types.LogLevel{types.LogLevel_UNSPECIFIED, 99} {
		_, err := client.SetLogLevel(Context(t), &loggerv1.SetLogLevelRequest{NewLevel: level})
		Refused(t, err, codes.InvalidArgument)
	}
}

func agentResetLogLevel(t *testing.T) {
	client := agentLogger(t)
	_, err := client.SetLogLevel(Context(t), &loggerv1.SetLogLevelRequest{NewLevel: types.LogLevel_ERROR})
	Must(t, err)
	logger, err := client.ResetLogLevel(Context(t), &loggerv1.ResetLogLevelRequest{})
	Must(t, err)
	True(t, "the level at the start is back", logger.CurrentLevel == types.LogLevel_DEBUG && logger.LaunchLevel == types.LogLevel_DEBUG)
}

func agentCheckHealth(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	client := grpc_health_v1.NewHealthClient(agent.Public(t))
	// To have no identity is no fault of the agent's.
	for _, path := range []string{"/a", "/b"} {
		answer, err := client.Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
		Must(t, err)
		Equal(t, "the status", answer.Status, grpc_health_v1.HealthCheckResponse_SERVING)
		agent.EntryFor(t, path, nil)
		agent.AwaitFetch(t, path)
	}
	_, err := client.Check(Context(t), &grpc_health_v1.HealthCheckRequest{Service: "SpiffeWorkloadAPI"})
	Refused(t, err, codes.InvalidArgument, "per-service health is not supported")
	quiet := StartAgent(t, Start(t, Settings{}), AgentSettings{Agent: "disable_workload_api = true"})
	answer, err := grpc_health_v1.NewHealthClient(quiet.Public(t)).Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Must(t, err)
	Equal(t, "the status without a Workload API", answer.Status, grpc_health_v1.HealthCheckResponse_SERVING)
}

func agentWatchHealth(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	stream, err := grpc_health_v1.NewHealthClient(agent.Public(t)).Watch(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Must(t, err)
	answer, err := stream.Recv()
	if StockAgent() {
		Refused(t, err, codes.Unimplemented)
		return
	}
	Must(t, err)
	Equal(t, "the status", answer.Status, grpc_health_v1.HealthCheckResponse_SERVING)
}

func agentListHealth(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	_, err := grpc_health_v1.NewHealthClient(agent.Public(t)).List(Context(t), &grpc_health_v1.HealthListRequest{})
	Refused(t, err, codes.Unimplemented)
}

// offered are the services that reflection tells of, in the order of their names.
func offered(t *testing.T, conn grpc.ClientConnInterface) []string {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(Context(t))
	Must(t, err)
	Must(t, stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}))
	answer, err := stream.Recv()
	Must(t, err)
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	slices.Sort(names)
	return names
}

func agentReflection(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	conn := agent.Public(t)
	Equal(t, "the services", offered(t, conn), []string{
		"SpiffeWorkloadAPI", "envoy.service.secret.v3.SecretDiscoveryService", "grpc.health.v1.Health",
		"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	})
	stream, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(Context(t))
	Must(t, err)
	Must(t, stream.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "SpiffeWorkloadAPI"}}))
	answer, err := stream.Recv()
	Must(t, err)
	True(t, "a file describes it", len(answer.GetFileDescriptorResponse().GetFileDescriptorProto()) > 0)
}
