package conformance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/exp/proto/spiffe/broker"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	headers "google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-WIRE-BROKER", brokerAccess)
	holds("AGENT-RPC-BROKER-X509_SVID", brokerX509SVID)
	holds("AGENT-RPC-BROKER-X509_BUNDLES", brokerX509Bundles)
	holds("AGENT-RPC-BROKER-JWT_SVID", brokerJWTSVID)
	holds("AGENT-RPC-BROKER-JWT_BUNDLES", brokerJWTBundles)
}

// brokering is an agent with a broker endpoint on a socket and on a port.
type brokering struct {
	server *Server
	agent  *AgentProcess
	port   int
}

func startBrokering(t *testing.T) brokering {
	port := freePort(t)
	server := Start(t, Settings{})
	agent := StartAgent(t, server, AgentSettings{Agent: fmt.Sprintf(`experimental { broker {
		socket_path = "{DIR}/b/broker.sock"
		bind_address = "127.0.0.1:%d"
		brokers = [
			{ id = "spiffe://example.org/broker" allowed_reference_types = [ { type_url = "*" } ] },
			{ id = "spiffe://example.org/pods" allowed_reference_types = [ { type_url = "type.googleapis.com/spiffe.broker.KubernetesObjectReference" allow_over_tcp = true } ] },
			{ id = "spiffe://example.org/far" allowed_reference_types = [ { type_url = "type.googleapis.com/spiffe.broker.WorkloadPIDReference" allow_over_tcp = true } ] },
		]
	} }`, port)})
	return brokering{server, agent, port}
}

func (b brokering) local() string { return "unix:" + filepath.Join(b.agent.Dir, "b", "broker.sock") }

// as is a client with the SVID of a path; "" is one without.
func (b brokering) as(t *testing.T, path, target string) broker.APIClient {
	t.Helper()
	roots, want := b.server.Roots(t), "spiffe://example.org/spire/agent/join_token/"+b.agent.Token
	config := &tls.Config{
		// SVIDs have no host name; what is checked instead stands below.
		InsecureSkipVerify: true, //nolint:gosec
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
				return fmt.Errorf("the agent says it is %v", leaf.URIs)
			}
			_, err := leaf.Verify(x509.VerifyOptions{Roots: roots})
			return err
		},
	}
	if path != "" {
		identity := b.server.Mint(t, path, 600)
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{identity.Leaf().Raw}, PrivateKey: identity.Key}}
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return broker.NewAPIClient(conn)
}

func asBroker(t *testing.T) context.Context {
	return headers.AppendToOutgoingContext(Context(t), "broker.spiffe.io", "true")
}

// ourselves names the process that runs the tests.
func ourselves(t *testing.T) *broker.WorkloadReference {
	t.Helper()
	reference, err := anypb.New(&broker.WorkloadPIDReference{Pid: int32(os.Getpid())})
	Must(t, err)
	return &broker.WorkloadReference{Reference: reference}
}

func brokerAccess(t *testing.T) {
	b := startBrokering(t)
	b.agent.EntryFor(t, "/w", nil)
	b.agent.AwaitFetch(t, "/w")
	fetch := func(ctx context.Context, client broker.APIClient, reference *broker.WorkloadReference) error {
		_, err := client.FetchJWTSVID(ctx, &broker.FetchJWTSVIDRequest{Audience: []string{"a"}, Reference: reference})
		return err
	}
	trusted, remote := b.as(t, "/broker", b.local()), fmt.Sprintf("127.0.0.1:%d", b.port)
	Must(t, fetch(asBroker(t), trusted, ourselves(t)))
	Refused(t, fetch(Context(t), trusted, ourselves(t)), codes.InvalidArgument, "security header missing from request")
	Refused(t, fetch(AsWorkload(t), trusted, ourselves(t)), codes.InvalidArgument, "security header missing from request")
	Refused(t, fetch(asBroker(t), trusted, nil), codes.InvalidArgument)
	Refused(t, fetch(asBroker(t), trusted, &broker.WorkloadReference{Reference: &anypb.Any{}}), codes.InvalidArgument)
	// Who may name workloads how, and over which way.
	Refused(t, fetch(asBroker(t), b.as(t, "/pods", b.local()), ourselves(t)), codes.PermissionDenied)
	Refused(t, fetch(asBroker(t), b.as(t, "/broker", remote), ourselves(t)), codes.PermissionDenied, "TCP")
	Must(t, fetch(asBroker(t), b.as(t, "/far", remote), ourselves(t)))
	// Nobody else gets in.
	for _, path := range []string{"", "/stranger"} {
		err := fetch(asBroker(t), b.as(t, path, b.local()), ourselves(t))
		True(t, fmt.Sprintf("%q is refused: %v", path, err), err != nil)
	}
}

func brokerX509SVID(t *testing.T) {
	b := startBrokering(t)
	foreign := setForeignBundle(t, b.server, "other.example")
	client := b.as(t, "/broker", b.local())
	subscribe := func() grpc.ServerStreamingClient[broker.SubscribeToX509SVIDResponse] {
		stream, err := client.SubscribeToX509SVID(asBroker(t), &broker.SubscribeToX509SVIDRequest{Reference: ourselves(t)})
		Must(t, err)
		return stream
	}
	_, err := subscribe().Recv()
	Refused(t, err, codes.PermissionDenied)
	b.agent.EntryFor(t, "/w", func(entry *types.Entry) { entry.Hint, entry.FederatesWith = "h", []string{"other.example"} })
	b.agent.AwaitFetch(t, "/w")
	stream := subscribe()
	message := Next(t, stream)
	svid := message.Svids[0]
	Vouched(t, "spiffe://example.org/w", svid.X509Svid, svid.X509SvidKey, svid.Bundle)
	Equal(t, "the hint", svid.Hint, "h")
	Equal(t, "the foreign bundle", message.FederatedBundles["spiffe://other.example"], foreign.X509Authorities[0].Asn1)
	b.agent.EntryFor(t, "/admin", func(entry *types.Entry) { entry.Admin = true })
	b.agent.EntryFor(t, "/below", func(entry *types.Entry) { entry.Downstream = true })
	b.agent.EntryFor(t, "/second", nil)
	message = NextThat(t, stream, "a second one is there", func(one *broker.SubscribeToX509SVIDResponse) bool { return len(one.Svids) > 1 })
	paths := []string{message.Svids[0].SpiffeId, message.Svids[1].SpiffeId}
	slices.Sort(paths)
	Equal(t, "who is given", paths, []string{"spiffe://example.org/second", "spiffe://example.org/w"})
	b.server.DeleteEntries(t)
	Refused(t, EndOf(stream), codes.PermissionDenied)
}

func brokerX509Bundles(t *testing.T) {
	b := startBrokering(t)
	foreign := setForeignBundle(t, b.server, "other.example")
	client := b.as(t, "/broker", b.local())
	subscribe := func() grpc.ServerStreamingClient[broker.SubscribeToX509BundlesResponse] {
		stream, err := client.SubscribeToX509Bundles(asBroker(t), &broker.SubscribeToX509BundlesRequest{Reference: ourselves(t)})
		Must(t, err)
		return stream
	}
	_, err := subscribe().Recv()
	Refused(t, err, codes.PermissionDenied)
	b.agent.EntryFor(t, "/w", nil)
	b.agent.AwaitFetch(t, "/w")
	stream, own := subscribe(), b.server.Bundle(t).X509Authorities[0].Asn1
	Equal(t, "the own bundle", Next(t, stream).Bundles, map[string][]byte{"spiffe://example.org": own})
	b.agent.EntryFor(t, "/f", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	both := map[string][]byte{"spiffe://example.org": own, "spiffe://other.example": foreign.X509Authorities[0].Asn1}
	Equal(t, "both", Next(t, stream).Bundles, both)
}

func brokerJWTSVID(t *testing.T) {
	b := startBrokering(t)
	client := b.as(t, "/broker", b.local())
	fetch := func(id string, audience ...string) (*broker.FetchJWTSVIDResponse, error) {
		return client.FetchJWTSVID(asBroker(t), &broker.FetchJWTSVIDRequest{Reference: ourselves(t), SpiffeId: id, Audience: audience})
	}
	_, err := fetch("")
	Refused(t, err, codes.InvalidArgument, "audience must be specified")
	_, err = fetch("", "a")
	Refused(t, err, codes.PermissionDenied)
	b.agent.EntryFor(t, "/second", func(entry *types.Entry) { entry.Id, entry.Hint = "b", "h" })
	b.agent.EntryFor(t, "/first", func(entry *types.Entry) { entry.Id = "a" })
	b.agent.AwaitFetch(t, "/first", "/second")
	answer, err := fetch("", "a")
	Must(t, err)
	for i, id := range []string{"spiffe://example.org/first", "spiffe://example.org/second"} {
		_, claims := ReadJWT(t, answer.Svids[i].Svid)
		Equal(t, "sub", claims["sub"], any(id))
	}
	Equal(t, "the hint", answer.Svids[1].Hint, "h")
	if !StockAgent() {
		one, err := fetch("spiffe://example.org/second", "a")
		Must(t, err)
		Equal(t, "the one that was asked for", len(one.Svids), 1)
	}
}

func brokerJWTBundles(t *testing.T) {
	b := startBrokering(t)
	setForeignBundle(t, b.server, "other.example")
	client := b.as(t, "/broker", b.local())
	subscribe := func() grpc.ServerStreamingClient[broker.SubscribeToJWTBundlesResponse] {
		stream, err := client.SubscribeToJWTBundles(asBroker(t), &broker.SubscribeToJWTBundlesRequest{Reference: ourselves(t)})
		Must(t, err)
		return stream
	}
	_, err := subscribe().Recv()
	Refused(t, err, codes.PermissionDenied)
	b.agent.EntryFor(t, "/w", nil)
	b.agent.AwaitFetch(t, "/w")
	stream := subscribe()
	True(t, "the own key is there", KeyIDs(t, Next(t, stream).Bundles["spiffe://example.org"])[b.server.Bundle(t).JwtAuthorities[0].KeyId] != nil)
	b.agent.EntryFor(t, "/f", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	NextThat(t, stream, "the foreign keys are there", func(one *broker.SubscribeToJWTBundlesResponse) bool {
		return len(one.Bundles) == 2 && len(KeyIDs(t, one.Bundles["spiffe://other.example"])) == 1
	})
}
