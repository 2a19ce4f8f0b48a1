package harness

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Identity is an SVID with its key.
type Identity struct {
	ID    *types.SPIFFEID
	Chain []*x509.Certificate
	Key   crypto.Signer
}

// Agent is an attested agent with a connection of its own.
type Agent struct {
	Identity
	Conn  *grpc.ClientConn
	Token string
}

// ID is an ID of the usual trust domain.
func ID(path string) *types.SPIFFEID { return &types.SPIFFEID{TrustDomain: TrustDomain, Path: path} }

// Uri is how an ID is written.
func Uri(id *types.SPIFFEID) string { return "spiffe://" + id.TrustDomain + id.Path }

// Context is a context for calls, with a time limit that no healthy call reaches.
func Context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// Local is the connection to the admin socket.
func (s *Server) Local(t *testing.T) *grpc.ClientConn {
	t.Helper()
	if s.local == nil {
		conn, err := grpc.NewClient("unix:"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
		Must(t, err)
		s.local = conn
	}
	return s.local
}

// Bundle is the trust domain's bundle.
func (s *Server) Bundle(t *testing.T) *types.Bundle {
	t.Helper()
	bundle, err := bundlev1.NewBundleClient(s.Local(t)).GetBundle(Context(t), &bundlev1.GetBundleRequest{})
	Must(t, err)
	return bundle
}

// Roots are the certificates of the bundle.
func (s *Server) Roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	for _, authority := range s.Bundle(t).X509Authorities {
		certificate, err := x509.ParseCertificate(authority.Asn1)
		Must(t, err)
		pool.AddCert(certificate)
	}
	return pool
}

// Dial connects over TLS, with an identity or, for nil, as a stranger.
func (s *Server) Dial(t *testing.T, identity *Identity) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.Address, grpc.WithTransportCredentials(credentials.NewTLS(s.TLS(t, identity))))
	Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TLS is the client's side of a connection: the server has to show the server's ID, vouched for by the bundle.
func (s *Server) TLS(t *testing.T, identity *Identity) *tls.Config {
	t.Helper()
	roots, want := s.Roots(t), "spiffe://"+s.TrustDomain+"/spire/server"
	config := &tls.Config{
		// SVIDs have no host name; what is checked instead stands below.
		InsecureSkipVerify: true, //nolint:gosec
		VerifyConnection: func(state tls.ConnectionState) error {
			leaf := state.PeerCertificates[0]
			intermediates := x509.NewCertPool()
			for _, certificate := range state.PeerCertificates[1:] {
				intermediates.AddCert(certificate)
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
				return fmt.Errorf("the server says it is %v", leaf.URIs)
			}
			_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
			return err
		},
	}
	if identity != nil {
		certificate := tls.Certificate{PrivateKey: identity.Key}
		for _, link := range identity.Chain {
			certificate.Certificate = append(certificate.Certificate, link.Raw)
		}
		config.Certificates = []tls.Certificate{certificate}
	}
	return config
}

// NewKey makes a P-256 key.
func NewKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Must(t, err)
	return key
}

// CSR asks for a certificate with these names; no URI gives none.
func CSR(t *testing.T, key crypto.Signer, uris []string, dnsNames ...string) []byte {
	t.Helper()
	template := &x509.CertificateRequest{DNSNames: dnsNames}
	for _, text := range uris {
		uri, err := url.Parse(text)
		Must(t, err)
		template.URIs = append(template.URIs, uri)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	Must(t, err)
	return csr
}

// Mint gives an identity to a path, as an operator does.
func (s *Server) Mint(t *testing.T, path string, ttl int32) *Identity {
	t.Helper()
	key := NewKey(t)
	csr := CSR(t, key, []string{"spiffe://" + s.TrustDomain + path})
	answer, err := svidv1.NewSVIDClient(s.Local(t)).MintX509SVID(Context(t), &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: ttl})
	Must(t, err)
	return ParseIdentity(t, answer.Svid, key)
}

// ParseIdentity reads an SVID of an answer.
func ParseIdentity(t *testing.T, svid *types.X509SVID, key crypto.Signer) *Identity {
	t.Helper()
	identity := &Identity{ID: svid.Id, Key: key}
	for _, der := range svid.CertChain {
		certificate, err := x509.ParseCertificate(der)
		Must(t, err)
		identity.Chain = append(identity.Chain, certificate)
	}
	return identity
}

// Leaf is the certificate of the identity itself.
func (i *Identity) Leaf() *x509.Certificate { return i.Chain[0] }

// JoinToken makes a token that lasts ten minutes.
func (s *Server) JoinToken(t *testing.T) string {
	t.Helper()
	token, err := agentv1.NewAgentClient(s.Local(t)).CreateJoinToken(Context(t), &agentv1.CreateJoinTokenRequest{Ttl: 600})
	Must(t, err)
	return token.Value
}

// AttestOver attests with a payload over a connection; the answer is the first message of the server.
func AttestOver(t *testing.T, conn grpc.ClientConnInterface, kind string, payload, csr []byte) (*agentv1.AttestAgentResponse, error) {
	t.Helper()
	stream, err := agentv1.NewAgentClient(conn).AttestAgent(Context(t))
	Must(t, err)
	err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: kind, Payload: payload},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}})
	Must(t, err)
	return stream.Recv()
}

// Attest attests a new agent with a fresh token over a connection without certificate, and connects as it.
func (s *Server) Attest(t *testing.T) *Agent {
	t.Helper()
	token, key := s.JoinToken(t), NewKey(t)
	answer, err := AttestOver(t, s.Dial(t, nil), "join_token", []byte(token), CSR(t, key, nil))
	Must(t, err)
	result := answer.GetResult()
	if result == nil {
		t.Fatalf("no result: %v", answer)
	}
	identity := ParseIdentity(t, result.Svid, key)
	return &Agent{Identity: *identity, Conn: s.Dial(t, identity), Token: token}
}

// Authority makes a self-signed authority certificate of a trust domain, as another server would have.
func Authority(t *testing.T, trustDomain string) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key := NewKey(t)
	uri, err := url.Parse("spiffe://" + trustDomain)
	Must(t, err)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	Must(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIFFE"}},
		URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	Must(t, err)
	certificate, err := x509.ParseCertificate(der)
	Must(t, err)
	return certificate, key
}

// Verify checks that the server's bundle vouches for an identity.
func (s *Server) Verify(t *testing.T, identity *Identity) {
	t.Helper()
	intermediates := x509.NewCertPool()
	for _, certificate := range identity.Chain[1:] {
		intermediates.AddCert(certificate)
	}
	options := x509.VerifyOptions{Roots: s.Roots(t), Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	_, err := identity.Leaf().Verify(options)
	Must(t, err)
	if len(identity.Leaf().URIs) != 1 || identity.Leaf().URIs[0].String() != Uri(identity.ID) {
		t.Fatal(errors.New("the certificate and the answer name different IDs"))
	}
}
