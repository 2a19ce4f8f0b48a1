package conformance

import (
	"crypto/x509"
	"fmt"
	"testing"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-BUNDLE-COUNT", countBundles)
	holds("RPC-BUNDLE-GET", getBundle)
	holds("RPC-BUNDLE-APPEND", appendBundle)
	holds("RPC-BUNDLE-PUBLISH_JWT", publishJWT)
	holds("RPC-BUNDLE-PUBLISH_WIT", publishWIT)
	holds("RPC-BUNDLE-LIST_FEDERATED", listFederated)
	holds("RPC-BUNDLE-GET_FEDERATED", getFederated)
	holds("RPC-BUNDLE-CREATE_FEDERATED", createFederated)
	holds("RPC-BUNDLE-UPDATE_FEDERATED", updateFederated)
	holds("RPC-BUNDLE-SET_FEDERATED", setFederated)
	holds("RPC-BUNDLE-DELETE_FEDERATED", deleteFederated)
}

func bundlesOf(t *testing.T, s *Server) bundlev1.BundleClient {
	return bundlev1.NewBundleClient(s.Local(t))
}

// foreignBundle is a bundle of another trust domain with an authority of its own and a JWT key.
func foreignBundle(t *testing.T, name string) *types.Bundle {
	t.Helper()
	certificate, _ := Authority(t, name)
	return &types.Bundle{
		TrustDomain: name, RefreshHint: 60, SequenceNumber: 42,
		X509Authorities: []*types.X509Certificate{{Asn1: certificate.Raw}}, JwtAuthorities: []*types.JWTKey{jwtKey(t, "kid-"+name)},
	}
}

func jwtKey(t *testing.T, kid string) *types.JWTKey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(NewKey(t).Public())
	Must(t, err)
	return &types.JWTKey{PublicKey: der, KeyId: kid, ExpiresAt: 4102444800}
}

func setForeignBundle(t *testing.T, s *Server, name string) *types.Bundle {
	t.Helper()
	bundle := foreignBundle(t, name)
	answer, err := bundlesOf(t, s).BatchSetFederatedBundle(Context(t), &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{bundle}})
	Must(t, err)
	Item(t, answer.Results[0].Status, codes.OK)
	return bundle
}

// badBundles cannot be stored as a federated bundle; the text stands in the item's status.
func badBundles(t *testing.T) map[string]*types.Bundle {
	malformed, nameless := foreignBundle(t, "bad.example"), foreignBundle(t, "bad.example")
	malformed.X509Authorities[0].Asn1 = []byte("no certificate")
	nameless.JwtAuthorities[0].KeyId = ""
	return map[string]*types.Bundle{
		"trust domain argument is not valid": {TrustDomain: "not a name"},
		"own trust domain is not allowed":    foreignBundle(t, TrustDomain),
		"failed to convert bundle":           malformed,
		"key":                                nameless,
	}
}

func sameBundle(t *testing.T, what string, found, expected *types.Bundle) {
	t.Helper()
	if len(found.GetX509Authorities()) != len(expected.X509Authorities) || len(found.GetJwtAuthorities()) != len(expected.JwtAuthorities) {
		t.Errorf("%s has other authorities: %v", what, found)
		return
	}
	for i, authority := range expected.X509Authorities {
		Equal(t, what+": an X.509 authority", found.X509Authorities[i].Asn1, authority.Asn1)
	}
	for i, key := range expected.JwtAuthorities {
		Equal(t, what+": a JWT key", found.JwtAuthorities[i].KeyId, key.KeyId)
		Equal(t, what+": a JWT public key", found.JwtAuthorities[i].PublicKey, key.PublicKey)
	}
	Equal(t, what+": the trust domain", found.TrustDomain, expected.TrustDomain)
	Equal(t, what+": the refresh hint", found.RefreshHint, expected.RefreshHint)
	Equal(t, what+": the sequence number", found.SequenceNumber, expected.SequenceNumber)
}

func countBundles(t *testing.T) {
	s := Start(t, Settings{})
	for expected := range int32(3) {
		answer, err := bundlesOf(t, s).CountBundles(Context(t), &bundlev1.CountBundlesRequest{})
		Must(t, err)
		Equal(t, "the count, the server's own included,", answer.Count, expected+1)
		setForeignBundle(t, s, fmt.Sprintf("td%d.example", expected))
	}
}

func getBundle(t *testing.T) {
	s := Start(t, Settings{})
	for _, client := range []bundlev1.BundleClient{bundlesOf(t, s), bundlev1.NewBundleClient(s.Dial(t, nil))} {
		bundle, err := client.GetBundle(Context(t), &bundlev1.GetBundleRequest{})
		Must(t, err)
		Equal(t, "the trust domain", bundle.TrustDomain, TrustDomain)
		True(t, "an X.509 and a JWT authority", len(bundle.X509Authorities) == 1 && len(bundle.JwtAuthorities) == 1)
		certificate, err := x509.ParseCertificate(bundle.X509Authorities[0].Asn1)
		Must(t, err)
		True(t, "a self-signed authority named as the trust domain", certificate.IsCA && certificate.CheckSignatureFrom(certificate) == nil && certificate.URIs[0].String() == "spiffe://example.org")
		_, err = x509.ParsePKIXPublicKey(bundle.JwtAuthorities[0].PublicKey)
		Must(t, err)
		True(t, "the JWT key has an id of 32 characters and an end", len(bundle.JwtAuthorities[0].KeyId) == 32 && bundle.JwtAuthorities[0].ExpiresAt > 0)
		masked, err := client.GetBundle(Context(t), &bundlev1.GetBundleRequest{OutputMask: &types.BundleMask{SequenceNumber: true}})
		Must(t, err)
		True(t, "the mask holds", len(masked.X509Authorities) == 0 && len(masked.JwtAuthorities) == 0 && masked.TrustDomain == TrustDomain)
	}
}

func appendBundle(t *testing.T) {
	s := Start(t, Settings{})
	before := s.Bundle(t)
	more := foreignBundle(t, TrustDomain)
	client := bundlesOf(t, s)
	request := &bundlev1.AppendBundleRequest{X509Authorities: more.X509Authorities, JwtAuthorities: more.JwtAuthorities}
	after, err := client.AppendBundle(Context(t), request)
	Must(t, err)
	True(t, "both authorities are added", len(after.X509Authorities) == 2 && len(after.JwtAuthorities) == len(before.JwtAuthorities)+1)
	Equal(t, "the sequence number", after.SequenceNumber, before.SequenceNumber+1)
	again, err := client.AppendBundle(Context(t), request)
	Must(t, err)
	True(t, "what is there already changes nothing", again.SequenceNumber == after.SequenceNumber && len(again.X509Authorities) == 2)
	masked, err := client.AppendBundle(Context(t), &bundlev1.AppendBundleRequest{JwtAuthorities: more.JwtAuthorities, OutputMask: &types.BundleMask{}})
	Must(t, err)
	True(t, "the mask holds", len(masked.X509Authorities) == 0 && masked.TrustDomain == TrustDomain)
	_, err = client.AppendBundle(Context(t), &bundlev1.AppendBundleRequest{})
	Refused(t, err, codes.InvalidArgument, "no authorities to append")
	_, err = client.AppendBundle(Context(t), &bundlev1.AppendBundleRequest{X509Authorities: []*types.X509Certificate{{Asn1: []byte("x")}}})
	Refused(t, err, codes.InvalidArgument, "X.509 authority")
	_, err = client.AppendBundle(Context(t), &bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{{PublicKey: []byte("x"), KeyId: "a"}}})
	Refused(t, err, codes.InvalidArgument, "JWT authority")
	_, err = client.AppendBundle(Context(t), &bundlev1.AppendBundleRequest{JwtAuthorities: []*types.JWTKey{{PublicKey: more.JwtAuthorities[0].PublicKey}}})
	Refused(t, err, codes.InvalidArgument, "JWT authority")
}

// downstream is an identity with a downstream entry.
func downstream(t *testing.T, s *Server) *Identity {
	t.Helper()
	one := entry("/spire/agent/x/1", "/below", "a:1")
	one.Downstream = true
	create(t, s, one)
	return s.Mint(t, "/below", 0)
}

func publishJWT(t *testing.T) {
	s := Start(t, Settings{})
	client := bundlev1.NewBundleClient(s.Dial(t, downstream(t, s)))
	before := s.Bundle(t)
	key := jwtKey(t, "below")
	answer, err := client.PublishJWTAuthority(Context(t), &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
	Must(t, err)
	Equal(t, "the number of keys in the answer", len(answer.JwtAuthorities), len(before.JwtAuthorities)+1)
	Eventually(t, "the key is in the bundle", func() bool { return len(s.Bundle(t).JwtAuthorities) == len(before.JwtAuthorities)+1 })
	_, err = client.PublishJWTAuthority(Context(t), &bundlev1.PublishJWTAuthorityRequest{})
	Refused(t, err, codes.InvalidArgument, "missing JWT authority")
	_, err = client.PublishJWTAuthority(Context(t), &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: &types.JWTKey{PublicKey: []byte("x"), KeyId: "y"}})
	Refused(t, err, codes.InvalidArgument, "invalid JWT authority")
	stranger := bundlev1.NewBundleClient(s.Dial(t, s.Mint(t, "/nobody", 0)))
	_, err = stranger.PublishJWTAuthority(Context(t), &bundlev1.PublishJWTAuthorityRequest{JwtAuthority: key})
	Refused(t, err, codes.PermissionDenied)
}

func publishWIT(t *testing.T) {
	off := Start(t, Settings{})
	_, err := bundlev1.NewBundleClient(off.Dial(t, downstream(t, off))).PublishWITAuthority(Context(t), &bundlev1.PublishWITAuthorityRequest{})
	Refused(t, err, codes.Unimplemented, "WIT")
	if Stock() {
		return
	}
	s := Start(t, witSVIDs)
	client := bundlev1.NewBundleClient(s.Dial(t, downstream(t, s)))
	jwt := jwtKey(t, "below")
	key := &types.WITKey{PublicKey: jwt.PublicKey, KeyId: jwt.KeyId}
	answer, err := client.PublishWITAuthority(Context(t), &bundlev1.PublishWITAuthorityRequest{WitAuthority: key})
	Must(t, err)
	Equal(t, "the number of keys in the answer", len(answer.WitAuthorities), 2)
	Equal(t, "the keys in the bundle", len(s.Bundle(t).WitAuthorities), 2)
	taken := &types.WITKey{PublicKey: jwtKey(t, "x").PublicKey, KeyId: s.Bundle(t).JwtAuthorities[0].KeyId}
	_, err = client.PublishWITAuthority(Context(t), &bundlev1.PublishWITAuthorityRequest{WitAuthority: taken})
	Refused(t, err, codes.AlreadyExists, "belongs to another authority")
	_, err = client.PublishWITAuthority(Context(t), &bundlev1.PublishWITAuthorityRequest{})
	Refused(t, err, codes.InvalidArgument, "missing WIT authority")
	stranger := bundlev1.NewBundleClient(s.Dial(t, s.Mint(t, "/nobody", 0)))
	_, err = stranger.PublishWITAuthority(Context(t), &bundlev1.PublishWITAuthorityRequest{WitAuthority: key})
	Refused(t, err, codes.PermissionDenied)
}

func listFederated(t *testing.T) {
	s := Start(t, Settings{})
	for i := range 5 {
		setForeignBundle(t, s, fmt.Sprintf("td%d.example", i))
	}
	request := &bundlev1.ListFederatedBundlesRequest{PageSize: 2, OutputMask: &types.BundleMask{RefreshHint: true}}
	found := map[string]bool{}
	for {
		answer, err := bundlesOf(t, s).ListFederatedBundles(Context(t), request)
		Must(t, err)
		for _, bundle := range answer.Bundles {
			found[bundle.TrustDomain] = true
			True(t, "the mask holds", bundle.RefreshHint == 60 && len(bundle.X509Authorities) == 0)
		}
		if request.PageToken = answer.NextPageToken; request.PageToken == "" {
			break
		}
	}
	True(t, "all five and not the server's own", len(found) == 5 && !found[TrustDomain])
	whole, err := bundlesOf(t, s).ListFederatedBundles(Context(t), &bundlev1.ListFederatedBundlesRequest{})
	Must(t, err)
	True(t, "without a page size everything", len(whole.Bundles) == 5 && whole.NextPageToken == "")
	_, err = bundlesOf(t, s).ListFederatedBundles(Context(t), &bundlev1.ListFederatedBundlesRequest{PageSize: 1, PageToken: "?"})
	Refused(t, err, codes.Internal)
}

func getFederated(t *testing.T) {
	s := Start(t, Settings{})
	stored := setForeignBundle(t, s, "other.example")
	agent := s.Attest(t)
	for _, client := range []bundlev1.BundleClient{bundlesOf(t, s), bundlev1.NewBundleClient(agent.Conn)} {
		found, err := client.GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "other.example"})
		Must(t, err)
		sameBundle(t, "the bundle", found, stored)
		found, err = client.GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "other.example", OutputMask: &types.BundleMask{}})
		Must(t, err)
		True(t, "the mask holds", len(found.X509Authorities) == 0 && found.TrustDomain == "other.example")
		_, err = client.GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: TrustDomain})
		Refused(t, err, codes.InvalidArgument, "own trust domain is not allowed")
		_, err = client.GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "none.example"})
		Refused(t, err, codes.NotFound, "bundle not found")
		_, err = client.GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "not a name"})
		Refused(t, err, codes.InvalidArgument, "trust domain argument is not valid")
	}
	_, err := bundlev1.NewBundleClient(s.Dial(t, nil)).GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "other.example"})
	Refused(t, err, codes.PermissionDenied)
}

func createFederated(t *testing.T) {
	s := Start(t, Settings{})
	one := foreignBundle(t, "one.example")
	batch := func(bundles ...*types.Bundle) []*bundlev1.BatchCreateFederatedBundleResponse_Result {
		answer, err := bundlesOf(t, s).BatchCreateFederatedBundle(Context(t), &bundlev1.BatchCreateFederatedBundleRequest{Bundle: bundles})
		Must(t, err)
		return answer.Results
	}
	results := batch(one, one)
	Item(t, results[0].Status, codes.OK)
	sameBundle(t, "the new bundle", results[0].Bundle, one)
	Item(t, results[1].Status, codes.AlreadyExists, "bundle already exists")
	for text, bundle := range badBundles(t) {
		Item(t, batch(bundle)[0].Status, codes.InvalidArgument, text)
	}
	masked, err := bundlesOf(t, s).BatchCreateFederatedBundle(Context(t), &bundlev1.BatchCreateFederatedBundleRequest{
		Bundle: []*types.Bundle{foreignBundle(t, "two.example")}, OutputMask: &types.BundleMask{},
	})
	Must(t, err)
	True(t, "the mask holds", masked.Results[0].Bundle.TrustDomain == "two.example" && len(masked.Results[0].Bundle.X509Authorities) == 0)
}

func updateFederated(t *testing.T) {
	s := Start(t, Settings{})
	old := setForeignBundle(t, s, "one.example")
	update := func(mask *types.BundleMask, bundle *types.Bundle) *bundlev1.BatchUpdateFederatedBundleResponse_Result {
		answer, err := bundlesOf(t, s).BatchUpdateFederatedBundle(Context(t), &bundlev1.BatchUpdateFederatedBundleRequest{Bundle: []*types.Bundle{bundle}, InputMask: mask})
		Must(t, err)
		return answer.Results[0]
	}
	newer := foreignBundle(t, "one.example")
	newer.RefreshHint, newer.SequenceNumber = 90, 43
	masked := update(&types.BundleMask{RefreshHint: true}, newer)
	Item(t, masked.Status, codes.OK)
	old.RefreshHint = 90
	sameBundle(t, "the bundle of which only the hint is new", masked.Bundle, old)
	whole := update(nil, newer)
	Item(t, whole.Status, codes.OK)
	sameBundle(t, "the bundle that was replaced", whole.Bundle, newer)
	Item(t, update(nil, foreignBundle(t, "none.example")).Status, codes.NotFound, "bundle not found")
	for text, bundle := range badBundles(t) {
		Item(t, update(nil, bundle).Status, codes.InvalidArgument, text)
	}
}

func setFederated(t *testing.T) {
	s := Start(t, Settings{})
	for range 2 {
		stored := setForeignBundle(t, s, "one.example")
		found, err := bundlesOf(t, s).GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "one.example"})
		Must(t, err)
		sameBundle(t, "the bundle", found, stored)
	}
	for text, bundle := range badBundles(t) {
		answer, err := bundlesOf(t, s).BatchSetFederatedBundle(Context(t), &bundlev1.BatchSetFederatedBundleRequest{Bundle: []*types.Bundle{bundle}})
		Must(t, err)
		Item(t, answer.Results[0].Status, codes.InvalidArgument, text)
	}
}

func deleteFederated(t *testing.T) {
	remove := func(s *Server, mode bundlev1.BatchDeleteFederatedBundleRequest_Mode, names ...string) []*bundlev1.BatchDeleteFederatedBundleResponse_Result {
		answer, err := bundlesOf(t, s).BatchDeleteFederatedBundle(Context(t), &bundlev1.BatchDeleteFederatedBundleRequest{TrustDomains: names, Mode: mode})
		Must(t, err)
		return answer.Results
	}
	federated := func() *Server {
		s := Start(t, Settings{})
		setForeignBundle(t, s, "used.example")
		setForeignBundle(t, s, "unused.example")
		one := entry("/n", "/web", "a:1")
		one.Id, one.FederatesWith = "a", []string{"used.example"}
		two := entry("/n", "/db", "a:1")
		two.Id = "b"
		create(t, s, one, two)
		return s
	}
	left := func(s *Server) []*types.Entry {
		answer, err := entriesOf(t, s).ListEntries(Context(t), &entryv1.ListEntriesRequest{})
		Must(t, err)
		return answer.Entries
	}
	s := federated()
	results := remove(s, bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT, "used.example", "unused.example", "none.example", TrustDomain, "not a name")
	Item(t, results[0].Status, codes.FailedPrecondition, "1")
	Item(t, results[1].Status, codes.OK)
	Item(t, results[2].Status, codes.NotFound, "bundle not found")
	Item(t, results[3].Status, codes.InvalidArgument, "not allowed")
	Item(t, results[4].Status, codes.InvalidArgument, "trust domain argument is not valid")
	Equal(t, "the trust domain in a result", results[1].TrustDomain, "unused.example")
	Equal(t, "the entries left", idsOf(left(s)), "ab")
	Item(t, remove(s, bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE, "used.example")[0].Status, codes.OK)
	Equal(t, "the entries left", idsOf(left(s)), "ab")
	for _, one := range left(s) {
		Equal(t, "what an entry federates with", len(one.FederatesWith), 0)
	}
	s = federated()
	Item(t, remove(s, bundlev1.BatchDeleteFederatedBundleRequest_DELETE, "used.example")[0].Status, codes.OK)
	Equal(t, "the entries left", idsOf(left(s)), "b")
	_, err := bundlesOf(t, s).BatchDeleteFederatedBundle(Context(t), &bundlev1.BatchDeleteFederatedBundleRequest{Mode: 7, TrustDomains: []string{"unused.example"}})
	Refused(t, err, codes.InvalidArgument, "mode")
}
