package conformance

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-SVID-MINT_X509", mintX509)
	holds("RPC-SVID-MINT_JWT", mintJWT)
	holds("RPC-SVID-MINT_WIT", mintWIT)
	holds("RPC-SVID-NEW_X509", newX509)
	holds("RPC-SVID-NEW_JWT", newJWT)
	holds("RPC-SVID-NEW_WIT", newWIT)
	holds("RPC-SVID-NEW_DOWNSTREAM_CA", newDownstreamCA)
}

func svidsOf(t *testing.T, s *Server) svidv1.SVIDClient { return svidv1.NewSVIDClient(s.Local(t)) }

// near compares lifetimes, which servers count from ten seconds before now.
func near(t *testing.T, what string, certificate *x509.Certificate, ttl time.Duration) {
	t.Helper()
	lifetime := certificate.NotAfter.Sub(certificate.NotBefore)
	True(t, fmt.Sprintf("%s lives for %v, which is %v and ten seconds", what, lifetime, ttl), lifetime >= ttl && lifetime <= ttl+15*time.Second)
}

func mintX509(t *testing.T) {
	s := Start(t, Settings{Server: `default_x509_svid_ttl = "30m"`})
	key := NewKey(t)
	mint := func(csr []byte, ttl int32) (*types.X509SVID, error) {
		answer, err := svidsOf(t, s).MintX509SVID(Context(t), &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: ttl})
		return answer.GetSvid(), err
	}
	web := "spiffe://example.org/web"
	svid, err := mint(CSR(t, key, []string{web}, "web.example", "*.api.example"), 90)
	Must(t, err)
	identity := ParseIdentity(t, svid, key)
	s.Verify(t, identity)
	leaf := identity.Leaf()
	near(t, "the SVID", leaf, 90*time.Second)
	Equal(t, "the expiry in the answer", svid.ExpiresAt, leaf.NotAfter.Unix())
	Equal(t, "the DNS names", leaf.DNSNames, []string{"web.example", "*.api.example"})
	Equal(t, "the common name", leaf.Subject.CommonName, "web.example")
	True(t, "no authority", !leaf.IsCA && leaf.BasicConstraintsValid && leaf.KeyUsage&x509.KeyUsageDigitalSignature != 0)
	Equal(t, "the extended key usage", leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth})
	True(t, "the key is the caller's", key.PublicKey.Equal(leaf.PublicKey))
	svid, err = mint(CSR(t, key, []string{web}), 0)
	Must(t, err)
	near(t, "an SVID without a wish", ParseIdentity(t, svid, key).Leaf(), 30*time.Minute)
	Equal(t, "the subject", ParseIdentity(t, svid, key).Leaf().Subject.Organization, []string{"SPIRE"})
	// The subject of the request is taken over.
	template := &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"Mine"}}, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/web"}}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	Must(t, err)
	svid, err = mint(der, 0)
	Must(t, err)
	Equal(t, "the subject", ParseIdentity(t, svid, key).Leaf().Subject.Organization, []string{"Mine"})
	broken := CSR(t, key, []string{web})
	broken[len(broken)-1] ^= 1
	for what, csr := range map[string][]byte{
		"no CSR":                             nil,
		"a malformed CSR":                    []byte("x"),
		"a CSR with a broken signature":      broken,
		"no URI":                             CSR(t, key, nil),
		"two URIs":                           CSR(t, key, []string{web, web + "2"}),
		"another trust domain":               CSR(t, key, []string{"spiffe://other.example/web"}),
		"a reserved path":                    CSR(t, key, []string{"spiffe://example.org/spire/agent/x"}),
		"no path":                            CSR(t, key, []string{"spiffe://example.org"}),
		"a bad DNS name":                     CSR(t, key, []string{web}, "a..b"),
		"a wildcard that covers another one": CSR(t, key, []string{web}, "*.a.example", "b.a.example"),
	} {
		_, err := mint(csr, 0)
		Equal(t, "the code of "+what, status.Code(err), codes.InvalidArgument)
	}
}

// claims reads a token after checking its signature with the bundle's key of that id.
func claims(t *testing.T, s *Server, token string) (header, body map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("no token: %s", token)
	}
	decode := func(part string) []byte {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		Must(t, err)
		return raw
	}
	Must(t, json.Unmarshal(decode(parts[0]), &header))
	Must(t, json.Unmarshal(decode(parts[1]), &body))
	signature := decode(parts[2])
	for _, key := range s.Bundle(t).JwtAuthorities {
		if key.KeyId != header["kid"] {
			continue
		}
		public, err := x509.ParsePKIXPublicKey(key.PublicKey)
		Must(t, err)
		if elliptic, is := public.(*ecdsa.PublicKey); is && header["alg"] == "ES256" {
			digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
			half := len(signature) / 2
			r, q := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
			True(t, "the signature holds", ecdsa.Verify(elliptic, digest[:], r, q))
		}
		return header, body
	}
	t.Errorf("no key %v in the bundle", header["kid"])
	return header, body
}

func number(value any) int64 {
	float, _ := value.(float64)
	return int64(float)
}

func checkToken(t *testing.T, s *Server, svid *types.JWTSVID, id *types.SPIFFEID, ttl int64, audience ...string) map[string]any {
	t.Helper()
	header, body := claims(t, s, svid.Token)
	Equal(t, "the type", header["typ"], any("JWT"))
	Equal(t, "the algorithm", header["alg"], any("ES256"))
	Equal(t, "the subject", body["sub"], any(Uri(id)))
	var list []any
	for _, one := range audience {
		list = append(list, one)
	}
	Equal(t, "the audience", body["aud"], any(list))
	Equal(t, "the lifetime", number(body["exp"])-number(body["iat"]), ttl)
	Equal(t, "the expiry in the answer", svid.ExpiresAt, number(body["exp"]))
	Equal(t, "the time of issue in the answer", svid.IssuedAt, number(body["iat"]))
	Equal(t, "the ID in the answer", Uri(svid.Id), Uri(id))
	_, hasNotBefore := body["nbf"]
	True(t, "no nbf", !hasNotBefore)
	return body
}

func mintJWT(t *testing.T) {
	s := Start(t, Settings{})
	mint := func(id *types.SPIFFEID, ttl int32, audience ...string) (*types.JWTSVID, error) {
		answer, err := svidsOf(t, s).MintJWTSVID(Context(t), &svidv1.MintJWTSVIDRequest{Id: id, Audience: audience, Ttl: ttl})
		return answer.GetSvid(), err
	}
	svid, err := mint(ID("/web"), 90, "one")
	Must(t, err)
	body := checkToken(t, s, svid, ID("/web"), 90, "one")
	True(t, "no jti and no issuer", body["jti"] == nil && body["iss"] == nil)
	svid, err = mint(ID("/web"), 0, "one", "", "two")
	Must(t, err)
	checkToken(t, s, svid, ID("/web"), 300, "one", "two")
	_, err = mint(ID("/web"), 0)
	Refused(t, err, codes.InvalidArgument, "at least one audience is required")
	_, err = mint(ID("/web"), 0, "")
	Refused(t, err, Done(codes.InvalidArgument, codes.Internal), "audience")
	for _, id := range []*types.SPIFFEID{nil, ID(""), ID("/spire/x"), {TrustDomain: "other.example", Path: "/web"}} {
		_, err = mint(id, 0, "one")
		Refused(t, err, codes.InvalidArgument, "invalid SPIFFE ID")
	}
}

func newX509(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	one := entry(agent.ID.Path, "/web", "a:1")
	one.Id, one.X509SvidTtl, one.DnsNames, one.Hint = "mine", 120, []string{"web.example"}, "internal"
	other := entry("/spire/agent/x/1", "/db", "a:1")
	other.Id = "other"
	create(t, s, one, other)
	Eventually(t, "the agent may have its entry", func() bool { return len(authorizedOf(t, agent, nil)) == 1 })
	client := svidv1.NewSVIDClient(agent.Conn)
	_, err := client.BatchNewX509SVID(Context(t), &svidv1.BatchNewX509SVIDRequest{})
	Refused(t, err, codes.InvalidArgument, "missing parameters")
	key := NewKey(t)
	csr := CSR(t, key, []string{"spiffe://other.example/not-me"}, "not-me.example")
	broken := slices.Clone(csr)
	broken[len(broken)-1] ^= 1
	answer, err := client.BatchNewX509SVID(Context(t), &svidv1.BatchNewX509SVIDRequest{Params: []*svidv1.NewX509SVIDParams{
		{EntryId: "mine", Csr: csr}, {Csr: csr}, {EntryId: "mine"}, {EntryId: "mine", Csr: []byte("x")}, {EntryId: "mine", Csr: broken},
		{EntryId: "other", Csr: csr}, {EntryId: "none", Csr: csr},
	}})
	Must(t, err)
	Item(t, answer.Results[0].Status, codes.OK)
	Item(t, answer.Results[1].Status, codes.InvalidArgument, "missing entry ID")
	Item(t, answer.Results[2].Status, codes.InvalidArgument, "missing CSR")
	Item(t, answer.Results[3].Status, codes.InvalidArgument, "CSR")
	Item(t, answer.Results[4].Status, codes.InvalidArgument, "signature")
	Item(t, answer.Results[5].Status, codes.NotFound, "entry not found or not authorized")
	Item(t, answer.Results[6].Status, codes.NotFound, "entry not found or not authorized")
	identity := ParseIdentity(t, answer.Results[0].Svid, key)
	s.Verify(t, identity)
	Equal(t, "the ID", Uri(identity.ID), "spiffe://example.org/web")
	Equal(t, "the DNS names", identity.Leaf().DNSNames, []string{"web.example"})
	near(t, "the SVID", identity.Leaf(), 120*time.Second)
	_, err = svidsOf(t, s).BatchNewX509SVID(Context(t), &svidv1.BatchNewX509SVIDRequest{})
	Refused(t, err, codes.PermissionDenied)
}

func newJWT(t *testing.T) {
	s := Start(t, Settings{})
	agent := s.Attest(t)
	one := entry(agent.ID.Path, "/web", "a:1")
	one.Id, one.JwtSvidTtl = "mine", 120
	unique := entry(agent.ID.Path, "/unique", "a:1")
	unique.Id, unique.AdditionalAttributes = "unique", &types.Entry_AdditionalAttributes{JwtSvidIncludeJti: true}
	other := entry("/spire/agent/x/1", "/db", "a:1")
	other.Id = "other"
	create(t, s, one, unique, other)
	Eventually(t, "the agent may have its entries", func() bool { return len(authorizedOf(t, agent, nil)) == 2 })
	fetch := func(id string, audience ...string) (*types.JWTSVID, error) {
		answer, err := svidv1.NewSVIDClient(agent.Conn).NewJWTSVID(Context(t), &svidv1.NewJWTSVIDRequest{EntryId: id, Audience: audience})
		return answer.GetSvid(), err
	}
	svid, err := fetch("mine", "one", "two")
	Must(t, err)
	body := checkToken(t, s, svid, ID("/web"), 120, "one", "two")
	True(t, "no jti", body["jti"] == nil)
	svid, err = fetch("unique", "one")
	Must(t, err)
	True(t, "a jti where the entry asks for it", checkToken(t, s, svid, ID("/unique"), 300, "one")["jti"] != nil)
	_, err = fetch("mine")
	Refused(t, err, codes.InvalidArgument, "at least one audience is required")
	for _, id := range []string{"other", "none"} {
		_, err = fetch(id, "one")
		Refused(t, err, codes.NotFound, "entry not found or not authorized")
	}
	_, err = fetch("", "one")
	True(t, "no entry ID is refused", err != nil)
	_, err = svidsOf(t, s).NewJWTSVID(Context(t), &svidv1.NewJWTSVIDRequest{EntryId: "mine", Audience: []string{"one"}})
	Refused(t, err, codes.PermissionDenied)
}

func newDownstreamCA(t *testing.T) {
	s := Start(t, Settings{})
	client := svidv1.NewSVIDClient(s.Dial(t, downstream(t, s)))
	key := NewKey(t)
	csr := CSR(t, key, []string{"spiffe://example.org"})
	answer, err := client.NewDownstreamX509CA(Context(t), &svidv1.NewDownstreamX509CARequest{Csr: csr, PreferredTtl: 600})
	Must(t, err)
	authority, err := x509.ParseCertificate(answer.CaCertChain[0])
	Must(t, err)
	True(t, "an authority for the trust domain", authority.IsCA && authority.URIs[0].String() == "spiffe://example.org" && authority.KeyUsage == x509.KeyUsageCertSign|x509.KeyUsageCRLSign)
	near(t, "the authority", authority, 600*time.Second)
	Equal(t, "the number of roots", len(answer.X509Authorities), len(s.Bundle(t).X509Authorities))
	_, err = authority.Verify(x509.VerifyOptions{Roots: s.Roots(t), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	Must(t, err)
	// What it signs is trusted in the whole trust domain.
	workload := NewKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/nested"}}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, workload.Public(), key)
	Must(t, err)
	nested := ParseIdentity(t, &types.X509SVID{Id: ID("/nested"), CertChain: append([][]byte{der}, answer.CaCertChain...)}, workload)
	s.Verify(t, nested)
	for _, csr := range [][]byte{[]byte("x"), nil} {
		_, err = client.NewDownstreamX509CA(Context(t), &svidv1.NewDownstreamX509CARequest{Csr: csr})
		Refused(t, err, codes.InvalidArgument, "CSR")
	}
	stranger := svidv1.NewSVIDClient(s.Dial(t, s.Mint(t, "/nobody", 0)))
	_, err = stranger.NewDownstreamX509CA(Context(t), &svidv1.NewDownstreamX509CARequest{Csr: csr})
	Refused(t, err, codes.PermissionDenied, "authorization denied for method")
}
