package conformance

import (
	"crypto/tls"
	"encoding/pem"
	"regexp"
	"slices"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secrets "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	authorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	. "spindle-conformance/harness"
)

func init() {
	holds("AGENT-RPC-SDS-FETCH", sdsFetch)
	holds("AGENT-RPC-SDS-STREAM", sdsStream)
	holds("AGENT-RPC-SDS-DELTA", sdsDelta)
}

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

func sdsOf(t *testing.T, agent *AgentProcess) secrets.SecretDiscoveryServiceClient {
	return secrets.NewSecretDiscoveryServiceClient(agent.Public(t))
}

// secretsIn are the secrets of an answer by their names, in its order.
func secretsIn(t *testing.T, resources []*anypb.Any) (names []string, found map[string]*tlsv3.Secret) {
	t.Helper()
	found = map[string]*tlsv3.Secret{}
	for _, resource := range resources {
		Equal(t, "the type of a resource", resource.TypeUrl, secretType)
		secret := &tlsv3.Secret{}
		Must(t, resource.UnmarshalTo(secret))
		names, found[secret.Name] = append(names, secret.Name), secret
	}
	return names, found
}

// spiffeDomains are the trust domains that a validation context for Envoy's SPIFFE validator names, in its order.
func spiffeDomains(t *testing.T, secret *tlsv3.Secret) []string {
	t.Helper()
	validator := secret.GetValidationContext().GetCustomValidatorConfig()
	Equal(t, "the validator", validator.GetName(), "envoy.tls.cert_validator.spiffe")
	config := &tlsv3.SPIFFECertValidatorConfig{}
	Must(t, validator.GetTypedConfig().UnmarshalTo(config))
	var names []string
	for _, domain := range config.TrustDomains {
		names = append(names, domain.Name)
		block, _ := pem.Decode(domain.TrustBundle.GetInlineBytes())
		True(t, "the bundle is PEM", block != nil && block.Type == "CERTIFICATE")
	}
	return names
}

func sdsFetch(t *testing.T) {
	server := Start(t, Settings{})
	setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{})
	client := sdsOf(t, agent)
	fetch := func(node *core.Node, names ...string) (*discovery.DiscoveryResponse, error) {
		return client.FetchSecrets(Context(t), &discovery.DiscoveryRequest{TypeUrl: secretType, ResourceNames: names, Node: node})
	}
	get := func(node *core.Node, names ...string) map[string]*tlsv3.Secret {
		answer, err := fetch(node, names...)
		Must(t, err)
		True(t, "neither version nor nonce", answer.VersionInfo == "" && answer.Nonce == "")
		Equal(t, "the type", answer.TypeUrl, secretType)
		_, found := secretsIn(t, answer.Resources)
		Equal(t, "how many", len(found), max(len(names), len(answer.Resources)))
		return found
	}
	// Without an identity the own bundle is given, and nothing else.
	Equal(t, "the own bundle", spiffeDomains(t, get(nil, "ROOTCA")["ROOTCA"]), []string{"example.org"})
	_, err := fetch(nil, "default", "ROOTCA")
	Refused(t, err, codes.InvalidArgument, "workload is not authorized for the requested identities", "default")

	agent.EntryFor(t, "/second", func(entry *types.Entry) { entry.Id = "b" })
	agent.EntryFor(t, "/first", func(entry *types.Entry) { entry.Id, entry.FederatesWith = "a", []string{"other.example"} })
	agent.AwaitFetch(t, "/first", "/second")
	certificate := get(nil, "spiffe://example.org/second")["spiffe://example.org/second"].GetTlsCertificate()
	pair, err := tls.X509KeyPair(certificate.CertificateChain.GetInlineBytes(), certificate.PrivateKey.GetInlineBytes())
	Must(t, err)
	Equal(t, "the ID", pair.Leaf.URIs[0].String(), "spiffe://example.org/second")
	fallback := get(nil, "default")["default"].GetTlsCertificate()
	pair, err = tls.X509KeyPair(fallback.CertificateChain.GetInlineBytes(), fallback.PrivateKey.GetInlineBytes())
	Must(t, err)
	Equal(t, "the default identity", pair.Leaf.URIs[0].String(), "spiffe://example.org/first")

	Equal(t, "one domain", spiffeDomains(t, get(nil, "spiffe://example.org")["spiffe://example.org"]), []string{"example.org"})
	Equal(t, "a foreign one", spiffeDomains(t, get(nil, "spiffe://other.example")["spiffe://other.example"]), []string{"other.example"})
	Equal(t, "all", spiffeDomains(t, get(nil, "ALL")["ALL"]), []string{"example.org", "other.example"})
	_, err = fetch(nil, "spiffe://third.example")
	Refused(t, err, codes.InvalidArgument, `workload is not authorized for the requested identities ["spiffe://third.example"]`)
	if !StockAgent() {
		True(t, "what stands for the own bundle can be asked for together", len(get(nil, "spiffe://example.org", "ROOTCA", "ALL")) == 3)
	}
	everything, err := fetch(nil)
	Must(t, err)
	names, _ := secretsIn(t, everything.Resources)
	slices.Sort(names)
	Equal(t, "everything", names, []string{"spiffe://example.org", "spiffe://example.org/first", "spiffe://example.org/second", "spiffe://other.example"})

	// Proxies without Envoy's SPIFFE validator are given plain authorities, and cannot have several trust domains at once.
	old := &core.Node{UserAgentVersionType: &core.Node_UserAgentBuildVersion{UserAgentBuildVersion: &core.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 17}}}}
	yes, err := structpb.NewStruct(map[string]any{"disable_spiffe_cert_validation": "true"})
	Must(t, err)
	for _, node := range []*core.Node{old, {Metadata: yes}} {
		block, _ := pem.Decode(get(node, "ROOTCA")["ROOTCA"].GetValidationContext().GetTrustedCa().GetInlineBytes())
		True(t, "plain authorities", block != nil)
		_, err = fetch(node, "ALL")
		Refused(t, err, codes.Internal)
	}
}

func sdsStream(t *testing.T) {
	server := Start(t, Settings{})
	setForeignBundle(t, server, "other.example")
	agent := StartAgent(t, server, AgentSettings{})
	agent.EntryFor(t, "/a", func(entry *types.Entry) { entry.Id = "a" })
	agent.AwaitFetch(t, "/a")
	stream, err := sdsOf(t, agent).StreamSecrets(Context(t))
	Must(t, err)
	send := func(names []string, version, nonce string, fault *rpcstatus.Status) {
		Must(t, stream.Send(&discovery.DiscoveryRequest{TypeUrl: secretType, ResourceNames: names, VersionInfo: version, ResponseNonce: nonce, ErrorDetail: fault}))
	}
	noncePattern := regexp.MustCompile("^[0-9a-f]{8}$")
	next := func(expected ...string) *discovery.DiscoveryResponse {
		t.Helper()
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		names, _ := secretsIn(t, answer.Resources)
		slices.Sort(names)
		Equal(t, "the resources", names, expected)
		Equal(t, "the type", answer.TypeUrl, secretType)
		True(t, "the nonce is four bytes in hex", noncePattern.MatchString(answer.Nonce))
		return answer
	}
	send([]string{"spiffe://example.org/a"}, "", "", nil)
	first := next("spiffe://example.org/a")
	Equal(t, "the first version", first.VersionInfo, "1")
	// Taken; then other names, which are answered. A request that answers an older nonce counts for nothing.
	send([]string{"spiffe://example.org/a"}, first.VersionInfo, first.Nonce, nil)
	send([]string{"ROOTCA", "spiffe://example.org/a"}, first.VersionInfo, first.Nonce, nil)
	second := next("ROOTCA", "spiffe://example.org/a")
	send([]string{"ROOTCA"}, first.VersionInfo, "00000000", nil)
	// A refusal is no reason to send the same again; the next answer follows a change of names.
	send([]string{"ROOTCA", "spiffe://example.org/a"}, first.VersionInfo, second.Nonce, &rpcstatus.Status{Code: 3, Message: "not taken"})
	send([]string{"spiffe://example.org"}, first.VersionInfo, second.Nonce, nil)
	third := next("spiffe://example.org")
	True(t, "each answer has a nonce of its own", first.Nonce != second.Nonce && second.Nonce != third.Nonce)

	// What changes is sent without being asked for.
	send([]string{"spiffe://example.org"}, third.VersionInfo, third.Nonce, nil)
	_, err = authoritiesOf(t, server).PrepareX509Authority(Context(t), &authorityv1.PrepareX509AuthorityRequest{})
	Must(t, err)
	fourth := next("spiffe://example.org")
	True(t, "with another version", fourth.VersionInfo != third.VersionInfo)
	send([]string{"spiffe://example.org/none"}, fourth.VersionInfo, fourth.Nonce, nil)
	_, err = stream.Recv()
	Refused(t, err, codes.InvalidArgument, `workload is not authorized for the requested identities ["spiffe://example.org/none"]`)

	all, err := sdsOf(t, agent).StreamSecrets(Context(t))
	Must(t, err)
	Must(t, all.Send(&discovery.DiscoveryRequest{TypeUrl: secretType}))
	answer := Next(t, all)
	Equal(t, "everything", len(answer.Resources), 2)
	agent.EntryFor(t, "/f", func(entry *types.Entry) { entry.FederatesWith = []string{"other.example"} })
	NextThat(t, all, "a second certificate and a foreign bundle are there", func(one *discovery.DiscoveryResponse) bool { return len(one.Resources) == 4 })
}

func sdsDelta(t *testing.T) {
	agent := StartAgent(t, Start(t, Settings{}), AgentSettings{})
	agent.EntryFor(t, "/a", nil)
	agent.AwaitFetch(t, "/a")
	stream, err := sdsOf(t, agent).DeltaSecrets(Context(t))
	Must(t, err)
	Must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: secretType, ResourceNamesSubscribe: []string{"ROOTCA", "spiffe://example.org/a", "spiffe://example.org/b"}}))
	answer, err := stream.Recv()
	if StockAgent() {
		Refused(t, err, codes.Unimplemented)
		return
	}
	Must(t, err)
	names := func(answer *discovery.DeltaDiscoveryResponse) (names []string) {
		for _, resource := range answer.Resources {
			names = append(names, resource.Name)
		}
		slices.Sort(names)
		return names
	}
	Equal(t, "what there is", names(answer), []string{"ROOTCA", "spiffe://example.org/a"})
	Must(t, stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: secretType, ResponseNonce: answer.Nonce}))
	agent.EntryFor(t, "/b", nil)
	answer, err = stream.Recv()
	Must(t, err)
	Equal(t, "what is new alone", names(answer), []string{"spiffe://example.org/b"})
}
