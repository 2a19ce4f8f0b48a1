package conformance

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-TRUSTDOMAIN-LIST", listRelationships)
	holds("RPC-TRUSTDOMAIN-GET", getRelationship)
	holds("RPC-TRUSTDOMAIN-CREATE", createRelationships)
	holds("RPC-TRUSTDOMAIN-UPDATE", updateRelationships)
	holds("RPC-TRUSTDOMAIN-DELETE", deleteRelationships)
	absent("RPC-TRUSTDOMAIN-REFRESH", refreshBundle)
}

type relationship = types.FederationRelationship

func domainsOf(t *testing.T, s *Server) trustdomainv1.TrustDomainClient {
	return trustdomainv1.NewTrustDomainClient(s.Local(t))
}

// web is a relationship whose endpoint has a web certificate; nobody answers at its address.
func web(name string) *relationship {
	return &relationship{
		TrustDomain: name, BundleEndpointUrl: "https://127.0.0.1:1/bundle",
		BundleEndpointProfile: &types.FederationRelationship_HttpsWeb{HttpsWeb: &types.HTTPSWebProfile{}},
	}
}

// spiffe is a relationship whose endpoint shows an SVID.
func spiffe(name, endpoint string) *relationship {
	one := web(name)
	one.BundleEndpointProfile = &types.FederationRelationship_HttpsSpiffe{HttpsSpiffe: &types.HTTPSSPIFFEProfile{EndpointSpiffeId: endpoint}}
	return one
}

func relate(t *testing.T, s *Server, relationships ...*relationship) []*trustdomainv1.BatchCreateFederationRelationshipResponse_Result {
	t.Helper()
	request := &trustdomainv1.BatchCreateFederationRelationshipRequest{FederationRelationships: relationships}
	answer, err := domainsOf(t, s).BatchCreateFederationRelationship(Context(t), request)
	Must(t, err)
	return answer.Results
}

// badRelationships are refused when they are made and when they are changed.
func badRelationships(t *testing.T) []*relationship {
	url := func(text string) *relationship {
		one := web("bad.example")
		one.BundleEndpointUrl = text
		return one
	}
	profileless, foreign := web("bad.example"), web("bad.example")
	profileless.BundleEndpointProfile = nil
	foreign.TrustDomainBundle = foreignBundle(t, "third.example")
	return []*relationship{
		web("not a name"), url(""), url("http://a.example/"), url("https:///x"), url("https://user:pass@a.example/"), url("::"),
		profileless, foreign, spiffe("bad.example", "no id"), spiffe("bad.example", ""),
	}
}

func createRelationships(t *testing.T) {
	s := Start(t, Settings{})
	withBundle := spiffe("two.example", "spiffe://two.example/endpoint")
	withBundle.TrustDomainBundle = foreignBundle(t, "two.example")
	results := relate(t, s, web("one.example"), withBundle, web("one.example"), web(TrustDomain))
	Item(t, results[0].Status, codes.OK)
	Equal(t, "the address", results[0].FederationRelationship.BundleEndpointUrl, "https://127.0.0.1:1/bundle")
	True(t, "the profile", results[0].FederationRelationship.GetHttpsWeb() != nil)
	Item(t, results[1].Status, codes.OK)
	Equal(t, "the endpoint's ID", results[1].FederationRelationship.GetHttpsSpiffe().GetEndpointSpiffeId(), "spiffe://two.example/endpoint")
	Item(t, results[3].Status, codes.InvalidArgument, "unable to create federation relationship for server trust domain")
	Item(t, results[2].Status, Done(codes.AlreadyExists, codes.Internal))
	stored, err := bundlesOf(t, s).GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "two.example"})
	Must(t, err)
	Equal(t, "the bundle that came with it", stored.X509Authorities[0].Asn1, withBundle.TrustDomainBundle.X509Authorities[0].Asn1)
	for _, bad := range badRelationships(t) {
		Item(t, relate(t, s, bad)[0].Status, codes.InvalidArgument, "failed to convert federation relationship")
	}
}

func getRelationship(t *testing.T) {
	s := Start(t, Settings{})
	Item(t, relate(t, s, spiffe("one.example", "spiffe://one.example/e"))[0].Status, codes.OK)
	get := func(name string, mask *types.FederationRelationshipMask) (*relationship, error) {
		return domainsOf(t, s).GetFederationRelationship(Context(t), &trustdomainv1.GetFederationRelationshipRequest{TrustDomain: name, OutputMask: mask})
	}
	found, err := get("one.example", nil)
	Must(t, err)
	True(t, "the relationship", found.TrustDomain == "one.example" && found.GetHttpsSpiffe().GetEndpointSpiffeId() == "spiffe://one.example/e")
	found, err = get("one.example", &types.FederationRelationshipMask{BundleEndpointUrl: true})
	Must(t, err)
	True(t, "the mask holds", found.BundleEndpointProfile == nil && found.BundleEndpointUrl != "" && found.TrustDomain == "one.example")
	_, err = get("none.example", nil)
	Refused(t, err, codes.NotFound, "federation relationship does not exist")
	_, err = get("not a name", nil)
	Refused(t, err, codes.InvalidArgument, "failed to parse trust domain")
}

func listRelationships(t *testing.T) {
	s := Start(t, Settings{})
	for i := range 3 {
		Item(t, relate(t, s, web(fmt.Sprintf("td%d.example", i)))[0].Status, codes.OK)
	}
	var names []string
	request := &trustdomainv1.ListFederationRelationshipsRequest{PageSize: 2, OutputMask: &types.FederationRelationshipMask{}}
	for {
		answer, err := domainsOf(t, s).ListFederationRelationships(Context(t), request)
		Must(t, err)
		for _, one := range answer.FederationRelationships {
			names = append(names, one.TrustDomain)
			True(t, "the mask holds", one.BundleEndpointUrl == "")
		}
		True(t, "a page has a token exactly when it has rows", (len(answer.FederationRelationships) > 0) == (answer.NextPageToken != ""))
		if request.PageToken = answer.NextPageToken; request.PageToken == "" {
			break
		}
	}
	slices.Sort(names)
	Equal(t, "what pages hold", names, []string{"td0.example", "td1.example", "td2.example"})
	_, err := domainsOf(t, s).ListFederationRelationships(Context(t), &trustdomainv1.ListFederationRelationshipsRequest{PageSize: 1, PageToken: "?"})
	Refused(t, err, codes.Internal)
}

func updateRelationships(t *testing.T) {
	s := Start(t, Settings{})
	Item(t, relate(t, s, web("one.example"))[0].Status, codes.OK)
	update := func(mask *types.FederationRelationshipMask, one *relationship) *trustdomainv1.BatchUpdateFederationRelationshipResponse_Result {
		request := &trustdomainv1.BatchUpdateFederationRelationshipRequest{FederationRelationships: []*relationship{one}, InputMask: mask}
		answer, err := domainsOf(t, s).BatchUpdateFederationRelationship(Context(t), request)
		Must(t, err)
		return answer.Results[0]
	}
	newer := spiffe("one.example", "spiffe://one.example/e")
	newer.BundleEndpointUrl = "https://127.0.0.1:2/"
	masked := update(&types.FederationRelationshipMask{BundleEndpointUrl: true}, newer)
	Item(t, masked.Status, codes.OK)
	True(t, "only the address is new", masked.FederationRelationship.BundleEndpointUrl == "https://127.0.0.1:2/" && masked.FederationRelationship.GetHttpsWeb() != nil)
	whole := update(nil, newer)
	Item(t, whole.Status, codes.OK)
	True(t, "all is new", whole.FederationRelationship.GetHttpsSpiffe().GetEndpointSpiffeId() == "spiffe://one.example/e")
	Item(t, update(nil, web("none.example")).Status, Done(codes.NotFound, codes.Internal))
	for _, bad := range badRelationships(t) {
		Item(t, update(nil, bad).Status, codes.InvalidArgument)
	}
}

func deleteRelationships(t *testing.T) {
	s := Start(t, Settings{})
	withBundle := web("one.example")
	withBundle.TrustDomainBundle = foreignBundle(t, "one.example")
	Item(t, relate(t, s, withBundle)[0].Status, codes.OK)
	request := &trustdomainv1.BatchDeleteFederationRelationshipRequest{TrustDomains: []string{"one.example", "none.example", "", "not a name"}}
	answer, err := domainsOf(t, s).BatchDeleteFederationRelationship(Context(t), request)
	Must(t, err)
	Item(t, answer.Results[0].Status, codes.OK)
	Item(t, answer.Results[1].Status, codes.NotFound, "federation relationship not found")
	Item(t, answer.Results[2].Status, codes.InvalidArgument, "missing trust domain")
	Item(t, answer.Results[3].Status, codes.InvalidArgument, "failed to parse trust domain")
	_, err = bundlesOf(t, s).GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "one.example"})
	Must(t, err)
}

func refreshBundle(t *testing.T) {
	s := Start(t, Settings{})
	refresh := func(name string) error {
		_, err := domainsOf(t, s).RefreshBundle(Context(t), &trustdomainv1.RefreshBundleRequest{TrustDomain: name})
		return err
	}
	Refused(t, refresh("none.example"), codes.NotFound, "no relationship with trust domain")
	Refused(t, refresh("not a name"), codes.InvalidArgument, "failed to parse trust domain")
	Item(t, relate(t, s, web("one.example"))[0].Status, codes.OK)
	Refused(t, refresh("one.example"), codes.Unimplemented, "does not fetch bundles", "bundle set")
}

func jwkOf(t *testing.T, certificate *x509.Certificate) string {
	t.Helper()
	x, y := coordinates(t, certificate.PublicKey.(*ecdsa.PublicKey))
	return fmt.Sprintf(`{"use": "x509-svid", "kty": "EC", "crv": "P-256", "x": %q, "y": %q, "x5c": [%q]}`, x, y, base64.StdEncoding.EncodeToString(certificate.Raw))
}

func jwkOfKey(t *testing.T, kid string) string {
	t.Helper()
	x, y := coordinates(t, &NewKey(t).PublicKey)
	return fmt.Sprintf(`{"use": "jwt-svid", "kty": "EC", "crv": "P-256", "kid": %q, "x": %q, "y": %q}`, kid, x, y)
}

func coordinates(t *testing.T, key *ecdsa.PublicKey) (x, y string) {
	t.Helper()
	point, err := key.Bytes()
	Must(t, err)
	return base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
}
