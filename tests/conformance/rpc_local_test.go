package conformance

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	debugv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/debug/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	loggerv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/logger/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-LOGGER-GET", getLogger)
	holds("RPC-LOGGER-SET", setLogLevel)
	holds("RPC-LOGGER-RESET", resetLogLevel)
	holds("RPC-DEBUG-GET_INFO", getInfo)
	holds("RPC-HEALTH-CHECK", checkHealth)
	absent("RPC-HEALTH-LIST", listHealth)
	absent("RPC-HEALTH-WATCH", watchHealth)
	holds("WIRE-CALLERS", callers)
	holds("WIRE-LOCAL_ONLY", localOnly)
	holds("WIRE-TLS", tlsRules)
}

func loggerOf(t *testing.T, s *Server) loggerv1.LoggerClient {
	return loggerv1.NewLoggerClient(s.Local(t))
}

func getLogger(t *testing.T) {
	s := Prepare(t, Settings{})
	s.Boot(t, "-logLevel", "info")
	logger, err := loggerOf(t, s).GetLogger(Context(t), &loggerv1.GetLoggerRequest{})
	Must(t, err)
	True(t, "both levels", logger.CurrentLevel == types.LogLevel_INFO && logger.LaunchLevel == types.LogLevel_INFO)
}

func setLogLevel(t *testing.T) {
	s := Start(t, Settings{})
	for _, level := range []types.LogLevel{types.LogLevel_PANIC, types.LogLevel_FATAL, types.LogLevel_ERROR, types.LogLevel_WARN, types.LogLevel_INFO, types.LogLevel_DEBUG, types.LogLevel_TRACE} {
		logger, err := loggerOf(t, s).SetLogLevel(Context(t), &loggerv1.SetLogLevelRequest{NewLevel: level})
		Must(t, err)
		Equal(t, "the level", logger.CurrentLevel, level)
		Equal(t, "the level at the start", logger.LaunchLevel, types.LogLevel_DEBUG)
	}
	for _, level := range []types.LogLevel{types.LogLevel_UNSPECIFIED, 99} {
		_, err := loggerOf(t, s).SetLogLevel(Context(t), &loggerv1.SetLogLevelRequest{NewLevel: level})
		Refused(t, err, codes.InvalidArgument)
	}
}

func resetLogLevel(t *testing.T) {
	s := Start(t, Settings{})
	_, err := loggerOf(t, s).SetLogLevel(Context(t), &loggerv1.SetLogLevelRequest{NewLevel: types.LogLevel_ERROR})
	Must(t, err)
	logger, err := loggerOf(t, s).ResetLogLevel(Context(t), &loggerv1.ResetLogLevelRequest{})
	Must(t, err)
	True(t, "the level at the start is back", logger.CurrentLevel == types.LogLevel_DEBUG && logger.LaunchLevel == types.LogLevel_DEBUG)
}

func getInfo(t *testing.T) {
	s := Start(t, Settings{})
	s.Attest(t)
	create(t, s, entry("/n", "/a", "a:1"), entry("/n", "/b", "a:1"))
	client := debugv1.NewDebugClient(s.Local(t))
	Eventually(t, "what is there is counted", func() bool {
		info, err := client.GetInfo(Context(t), &debugv1.GetInfoRequest{})
		Must(t, err)
		return info.AgentsCount == 1 && info.EntriesCount == 2 && info.FederatedBundlesCount == 1
	})
	info, err := client.GetInfo(Context(t), &debugv1.GetInfoRequest{})
	Must(t, err)
	Equal(t, "the ID in the chain", Uri(info.SvidChain[0].Id), "spiffe://example.org/spire/server")
	True(t, "its expiry", info.SvidChain[0].ExpiresAt > 0)
	True(t, "its subject", info.SvidChain[0].Subject != "")
}

func healthOf(t *testing.T, s *Server) grpc_health_v1.HealthClient {
	return grpc_health_v1.NewHealthClient(s.Local(t))
}

func checkHealth(t *testing.T) {
	s := Start(t, Settings{})
	answer, err := healthOf(t, s).Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Must(t, err)
	Equal(t, "the status", answer.Status, grpc_health_v1.HealthCheckResponse_SERVING)
	_, err = healthOf(t, s).Check(Context(t), &grpc_health_v1.HealthCheckRequest{Service: "spire.api.server.entry.v1.Entry"})
	True(t, "no service has a health of its own", err != nil)
}

func listHealth(t *testing.T) {
	_, err := healthOf(t, Start(t, Settings{})).List(Context(t), &grpc_health_v1.HealthListRequest{})
	Refused(t, err, codes.Unimplemented)
}

func watchHealth(t *testing.T) {
	stream, err := healthOf(t, Start(t, Settings{})).Watch(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Must(t, err)
	_, err = stream.Recv()
	Refused(t, err, codes.Unimplemented)
}

// Who may call: L local, A admin, G agent, D downstream; anyone is all of them and strangers.
var mayCall = map[string]string{
	"agent": "LA", "agent.AttestAgent": "*", "agent.RenewAgent": "G", "agent.PostStatus": "G",
	"bundle": "LA", "bundle.GetBundle": "*", "bundle.PublishJWTAuthority": "D", "bundle.PublishWITAuthority": "D", "bundle.GetFederatedBundle": "LAG",
	"entry": "LA", "entry.GetAuthorizedEntries": "G", "entry.SyncAuthorizedEntries": "G",
	"svid": "LA", "svid.BatchNewX509SVID": "G", "svid.NewJWTSVID": "G", "svid.BatchNewWITSVID": "G", "svid.NewDownstreamX509CA": "D",
	"trustdomain": "LA", "localauthority": "LA", "logger": "L", "debug": "L",
}

// callers calls every method as everybody, with an empty message: whether it is let in shows before its content is looked at.
func callers(t *testing.T) {
	s := Start(t, Settings{Server: "admin_ids = [\"spiffe://example.org/admin-by-config\"]\nratelimit { attestation = false }"})
	admin := entry("/n", "/admin-by-entry", "a:1")
	admin.Admin = true
	create(t, s, admin)
	below := downstream(t, s)
	everybody := []struct {
		class string
		conn  *grpc.ClientConn
	}{
		{"L", s.Local(t)},
		{"A", s.Dial(t, s.Mint(t, "/admin-by-config", 0))},
		{"A", s.Dial(t, s.Mint(t, "/admin-by-entry", 0))},
		{"G", s.Attest(t).Conn},
		{"D", s.Dial(t, below)},
		{"-", s.Dial(t, s.Mint(t, "/workload", 0))},
		{"-", s.Dial(t, nil)},
	}
	verdicts := map[string]string{}
	for _, row := range table(t) {
		verdicts[row.what] = row.verdict
	}
	eachMethod(func(name string, method protoreflect.MethodDescriptor) {
		// The methods below change what the others rely on, or are not there over TLS at all.
		service := name[:len(name)-len(string(method.Name()))-1]
		if service == "logger" || service == "debug" {
			return
		}
		if verdicts["`"+name+"`"] == "absent" && !Stock() {
			for _, caller := range everybody {
				code := status.Code(callEmpty(t, caller.conn, method))
				True(t, fmt.Sprintf("%s is refused: %v", name, code), code == codes.Unimplemented || code == codes.PermissionDenied || code == codes.InvalidArgument)
			}
			return
		}
		classes, special := mayCall[name]
		if !special {
			classes = mayCall[service]
		}
		for _, caller := range everybody {
			err := callEmpty(t, caller.conn, method)
			wanted := fmt.Sprintf("authorization denied for method /%s/%s", method.Parent().FullName(), method.Name())
			denied := status.Code(err) == codes.PermissionDenied && status.Convert(err).Message() == wanted
			allowed := classes == "*" || containsClass(classes, caller.class)
			if denied == allowed {
				t.Errorf("%s as %s: allowed should be %v: %v", name, caller.class, allowed, err)
			}
		}
	})
}

func containsClass(classes, class string) bool {
	for _, one := range classes {
		if string(one) == class {
			return true
		}
	}
	return false
}

// eachMethod visits the methods of the server that are no health checks.
func eachMethod(visit func(name string, method protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				if name := serverRowName(service, method); name != "" {
					visit(name[1:len(name)-1], method)
				}
			}
		}
		return true
	})
}

// callEmpty calls a method with an empty message, a stream with one.
func callEmpty(t *testing.T, conn *grpc.ClientConn, method protoreflect.MethodDescriptor) error {
	t.Helper()
	path := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	request, answer := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if !method.IsStreamingClient() && !method.IsStreamingServer() {
		return conn.Invoke(Context(t), path, request, answer)
	}
	description := &grpc.StreamDesc{StreamName: string(method.Name()), ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(Context(t), description, path)
	Must(t, err)
	_ = stream.SendMsg(request)
	_ = stream.CloseSend()
	return stream.RecvMsg(answer)
}

func localOnly(t *testing.T) {
	s := Start(t, Settings{Server: `admin_ids = ["spiffe://example.org/admin"]`})
	for _, conn := range []*grpc.ClientConn{s.Dial(t, s.Mint(t, "/admin", 0)), s.Dial(t, nil)} {
		_, errs := loggerv1.NewLoggerClient(conn).GetLogger(Context(t), &loggerv1.GetLoggerRequest{})
		_, debug := debugv1.NewDebugClient(conn).GetInfo(Context(t), &debugv1.GetInfoRequest{})
		_, health := grpc_health_v1.NewHealthClient(conn).Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
		for _, err := range []error{errs, debug, health} {
			code := status.Code(err)
			True(t, fmt.Sprintf("not over TLS: %v", err), code == codes.Unimplemented || code == codes.PermissionDenied)
		}
	}
	_, err := debugv1.NewDebugClient(s.Local(t)).GetInfo(Context(t), &debugv1.GetInfoRequest{})
	Must(t, err)
	_, err = healthOf(t, s).Check(Context(t), &grpc_health_v1.HealthCheckRequest{})
	Must(t, err)
}

func tlsRules(t *testing.T) {
	s := Start(t, Settings{})
	_, err := bundlev1.NewBundleClient(s.Dial(t, nil)).GetBundle(Context(t), &bundlev1.GetBundleRequest{})
	Must(t, err)
	config := s.TLS(t, nil)
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", s.Address, config)
	Must(t, err)
	defer conn.Close()
	Equal(t, "the protocol", conn.ConnectionState().NegotiatedProtocol, "h2")
	// Certificates that nobody vouches for, or of somebody who is none of ours.
	foreign, key := Authority(t, "other.example")
	_, err = bundlev1.NewBundleClient(s.Dial(t, &Identity{Chain: []*x509.Certificate{foreign}, Key: key})).GetBundle(Context(t), &bundlev1.GetBundleRequest{})
	True(t, "an authority's certificate is no identity", err != nil)
	short := s.Mint(t, "/short", 1)
	Eventually(t, "an expired identity is refused", func() bool {
		_, err := bundlev1.NewBundleClient(s.Dial(t, short)).GetBundle(Context(t), &bundlev1.GetBundleRequest{})
		return err != nil
	})
	_, err = agentv1.NewAgentClient(s.Dial(t, nil)).ListAgents(Context(t), &agentv1.ListAgentsRequest{})
	Refused(t, err, codes.PermissionDenied, "authorization denied for method /spire.api.server.agent.v1.Agent/ListAgents")
	_, err = entryv1.NewEntryClient(s.Dial(t, s.Mint(t, "/workload", 0))).CountEntries(Context(t), &entryv1.CountEntriesRequest{})
	Refused(t, err, codes.PermissionDenied)
}
