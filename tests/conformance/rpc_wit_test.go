package conformance

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

// publicKey is a new key on P-256 as PKIX, with its coordinates in base64url.
func publicKey(t *testing.T) (der []byte, x, y string) {
	t.Helper()
	key := NewKey(t)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	Must(t, err)
	text := func(number *big.Int) string {
		return base64.RawURLEncoding.EncodeToString(number.FillBytes(make([]byte, 32)))
	}
	return der, text(key.X), text(key.Y)
}

func witRequest(t *testing.T, id *types.SPIFFEID, ttl int32) *svidv1.MintWITSVIDRequest {
	t.Helper()
	der, _, _ := publicKey(t)
	return &svidv1.MintWITSVIDRequest{Id: id, PublicKey: der, Ttl: ttl, SigningAlgorithm: "ES256"}
}

// witClaims are header and claims of a WIT-SVID that a WIT authority of the bundle has signed, on P-256 or P-384.
func witClaims(t *testing.T, s *Server, token string) (header, body map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	Equal(t, "the parts of the token", len(parts), 3)
	for i, into := range []*map[string]any{&header, &body} {
		decoded, err := base64.RawURLEncoding.DecodeString(parts[i])
		Must(t, err)
		Must(t, json.Unmarshal(decoded, into))
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	Must(t, err)
	Equal(t, "typ", header["typ"], any("wit+jwt"))
	for _, authority := range s.Bundle(t).WitAuthorities {
		if authority.KeyId != header["kid"] {
			continue
		}
		key, err := x509.ParsePKIXPublicKey(authority.PublicKey)
		Must(t, err)
		public, is := key.(*ecdsa.PublicKey)
		True(t, "an EC key", is)
		signed := []byte(parts[0] + "." + parts[1])
		var digest []byte
		if header["alg"] == "ES384" {
			sum := sha512.Sum384(signed)
			digest = sum[:]
		} else {
			sum := sha256.Sum256(signed)
			digest = sum[:]
		}
		half := len(signature) / 2
		r, two := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		True(t, "a good signature", ecdsa.Verify(public, digest, r, two))
		return header, body
	}
	t.Fatalf("no WIT authority of the bundle has the key ID %v", header["kid"])
	return nil, nil
}

// checkWIT compares the answer with its token, which says nothing but what it has to.
func checkWIT(t *testing.T, s *Server, svid *types.WITSVID, id *types.SPIFFEID, ttl int64, x, y string) {
	t.Helper()
	_, body := witClaims(t, s, svid.Token)
	Equal(t, "sub", body["sub"], any(Uri(id)))
	Equal(t, "the ID in the answer", Uri(svid.Id), Uri(id))
	Equal(t, "the lifetime", svid.ExpiresAt-svid.IssuedAt, ttl)
	Equal(t, "exp", number(body["exp"]), svid.ExpiresAt)
	Equal(t, "iat", number(body["iat"]), svid.IssuedAt)
	jwk := map[string]any{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": x, "y": y}
	Equal(t, "cnf", fmt.Sprint(body["cnf"]), fmt.Sprint(map[string]any{"jwk": jwk}))
	True(t, "no aud", body["aud"] == nil)
}

func mintWIT(t *testing.T) {
	_, err := svidsOf(t, Start(t, Settings{})).MintWITSVID(Context(t), &svidv1.MintWITSVIDRequest{})
	Refused(t, err, codes.Unimplemented, "WIT functionality is disabled")
	s := Start(t, witSVIDs)
	client := svidsOf(t, s)
	der, x, y := publicKey(t)
	for ttl, lives := range map[int32]int64{90: 90, 0: 3600} {
		answer, err := client.MintWITSVID(Context(t), &svidv1.MintWITSVIDRequest{Id: ID("/web"), PublicKey: der, Ttl: ttl, SigningAlgorithm: "ES256"})
		Must(t, err)
		checkWIT(t, s, answer.Svid, ID("/web"), lives, x, y)
	}
	for _, id := range []*types.SPIFFEID{nil, ID(""), ID("/spire/x"), {TrustDomain: "other.example", Path: "/web"}} {
		_, err = client.MintWITSVID(Context(t), witRequest(t, id, 0))
		Refused(t, err, codes.InvalidArgument, "invalid SPIFFE ID")
	}
	bad := witRequest(t, ID("/web"), 0)
	bad.PublicKey = []byte("x")
	_, err = client.MintWITSVID(Context(t), bad)
	Refused(t, err, codes.InvalidArgument, "public key")
	for _, algorithm := range []string{"", "none", "HS256", "ES384", "RS256"} {
		bad = witRequest(t, ID("/web"), 0)
		bad.SigningAlgorithm = algorithm
		_, err = client.MintWITSVID(Context(t), bad)
		Refused(t, err, codes.InvalidArgument)
	}
}

func newWIT(t *testing.T) {
	off := Start(t, Settings{})
	agent := off.Attest(t)
	if !Stock() {
		// SPIRE refuses each item instead.
		_, err := svidv1.NewSVIDClient(agent.Conn).BatchNewWITSVID(Context(t), &svidv1.BatchNewWITSVIDRequest{Params: []*svidv1.NewWITSVIDParams{{}}})
		Refused(t, err, codes.Unimplemented, "WIT functionality is disabled")
	}
	s := Start(t, witSVIDs)
	agent = s.Attest(t)
	one := entry(agent.ID.Path, "/web", "a:1")
	one.Id, one.X509SvidTtl, one.Hint = "mine", 120, "internal"
	plain := entry(agent.ID.Path, "/plain", "a:1")
	plain.Id = "plain"
	other := entry("/spire/agent/x/1", "/db", "a:1")
	other.Id = "other"
	create(t, s, one, plain, other)
	Eventually(t, "the agent may have its entries", func() bool { return len(authorizedOf(t, agent, nil)) == 2 })
	der, x, y := publicKey(t)
	param := func(id string) *svidv1.NewWITSVIDParams {
		return &svidv1.NewWITSVIDParams{EntryId: id, PublicKey: der, SigningAlgorithm: "ES256"}
	}
	client := svidv1.NewSVIDClient(agent.Conn)
	wrong := param("mine")
	wrong.SigningAlgorithm = "ES384"
	answer, err := client.BatchNewWITSVID(Context(t), &svidv1.BatchNewWITSVIDRequest{Params: []*svidv1.NewWITSVIDParams{param("mine"), param("other"), param(""), {EntryId: "mine"}, wrong, param("plain")}})
	Must(t, err)
	Equal(t, "the number of results", len(answer.Results), 6)
	checkWIT(t, s, answer.Results[0].Svid, ID("/web"), 120, x, y)
	checkWIT(t, s, answer.Results[5].Svid, ID("/plain"), 3600, x, y)
	for i, code := range []codes.Code{codes.OK, codes.NotFound, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument} {
		if i > 0 || !Stock() {
			Item(t, answer.Results[i].Status, code)
		}
	}
	_, err = client.BatchNewWITSVID(Context(t), &svidv1.BatchNewWITSVIDRequest{})
	Refused(t, err, codes.InvalidArgument, "missing parameters")
	_, err = svidsOf(t, s).BatchNewWITSVID(Context(t), &svidv1.BatchNewWITSVIDRequest{Params: []*svidv1.NewWITSVIDParams{param("mine")}})
	Refused(t, err, codes.PermissionDenied)
}
