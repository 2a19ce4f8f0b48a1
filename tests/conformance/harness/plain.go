package harness

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"path"
	"sync"
	"testing"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// PlainServer is as much of a SPIRE server as an agent needs: without our push stream, and with lifetimes that a test chooses.
// It believes every join token.
type PlainServer struct {
	agentv1.UnimplementedAgentServer
	bundlev1.UnimplementedBundleServer
	entryv1.UnimplementedEntryServer
	svidv1.UnimplementedSVIDServer

	address   string
	authority *x509.Certificate
	key       crypto.Signer
	// from and until are the lifetime of SVIDs, seen from the moment of signing.
	from, until time.Duration

	mutex   sync.Mutex
	calls   map[string]int
	entries []*types.Entry
}

// StartPlain starts a server whose X509-SVIDs last from and until then, seen from the moment of signing. It ends with the test.
func StartPlain(t *testing.T, from, until time.Duration) *PlainServer {
	t.Helper()
	authority, key := Authority(t, TrustDomain)
	authority.NotBefore = authority.NotBefore.Add(-100 * time.Hour)
	p := &PlainServer{authority: authority, key: key, from: from, until: until, calls: map[string]int{}}
	own := NewKey(t)
	der, err := p.sign("spiffe://"+TrustDomain+"/spire/server", own.Public(), -time.Minute, time.Hour)
	Must(t, err)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: own}}, ClientAuth: tls.RequestClientCert}
	count := func(method string) {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		p.calls[path.Base(method)]++
	}
	service := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			count(info.FullMethod)
			return handler(ctx, request)
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			count(info.FullMethod)
			return handler(server, stream)
		}))
	agentv1.RegisterAgentServer(service, p)
	bundlev1.RegisterBundleServer(service, p)
	entryv1.RegisterEntryServer(service, p)
	svidv1.RegisterSVIDServer(service, p)
	listener := Listen(t)
	p.address = listener.Addr().String()
	go func() { _ = service.Serve(listener) }()
	t.Cleanup(service.Stop)
	return p
}

// Calls is how often a method was called.
func (p *PlainServer) Calls(method string) int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.calls[method]
}

// AddEntry gives an identity to processes of whoever runs the tests.
func (p *PlainServer) AddEntry(id string, own *types.Selector) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.entries = append(p.entries, &types.Entry{Id: id, SpiffeId: ID("/" + id), ParentId: agentID(), Selectors: []*types.Selector{own}, CreatedAt: 1})
}

// Agent writes the configuration of an agent for this server.
func (p *PlainServer) Agent(t *testing.T, settings AgentSettings) *AgentProcess {
	t.Helper()
	bundle := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.authority.Raw}))
	return prepareAgent(t, &Server{TrustDomain: TrustDomain, Address: p.address}, settings, bundle, token)
}

func (p *PlainServer) sign(id string, public crypto.PublicKey, from, until time.Duration) ([]byte, error) {
	uri, err := url.Parse(id)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, URIs: []*url.URL{uri}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, template, p.authority, public, p.key)
}

// token is the one that its agents have.
const token = "t"

func agentID() *types.SPIFFEID { return ID("/spire/agent/join_token/" + token) }

// svid signs for the key of a CSR.
func (p *PlainServer) svid(id *types.SPIFFEID, csr []byte) (*types.X509SVID, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	der, err := p.sign(Uri(id), request.PublicKey, p.from, p.until)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &types.X509SVID{Id: id, CertChain: [][]byte{der}, ExpiresAt: time.Now().Add(p.until).Unix()}, nil
}

// AttestAgent believes the token.
func (p *PlainServer) AttestAgent(stream agentv1.Agent_AttestAgentServer) error {
	request, err := stream.Recv()
	if err != nil {
		return err
	}
	svid, err := p.svid(agentID(), request.GetParams().GetParams().GetCsr())
	if err != nil {
		return err
	}
	return stream.Send(&agentv1.AttestAgentResponse{Step: &agentv1.AttestAgentResponse_Result_{Result: &agentv1.AttestAgentResponse_Result{Svid: svid}}})
}

// RenewAgent signs again.
func (p *PlainServer) RenewAgent(_ context.Context, request *agentv1.RenewAgentRequest) (*agentv1.RenewAgentResponse, error) {
	svid, err := p.svid(agentID(), request.GetParams().GetCsr())
	return &agentv1.RenewAgentResponse{Svid: svid}, err
}

// PostStatus takes any.
func (p *PlainServer) PostStatus(context.Context, *agentv1.PostStatusRequest) (*agentv1.PostStatusResponse, error) {
	return &agentv1.PostStatusResponse{}, nil
}

// GetBundle is the one authority.
func (p *PlainServer) GetBundle(context.Context, *bundlev1.GetBundleRequest) (*types.Bundle, error) {
	return &types.Bundle{TrustDomain: TrustDomain, X509Authorities: []*types.X509Certificate{{Asn1: p.authority.Raw}}}, nil
}

func (p *PlainServer) all() []*types.Entry {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return append([]*types.Entry{}, p.entries...)
}

// GetAuthorizedEntries gives all entries to everybody.
func (p *PlainServer) GetAuthorizedEntries(context.Context, *entryv1.GetAuthorizedEntriesRequest) (*entryv1.GetAuthorizedEntriesResponse, error) {
	return &entryv1.GetAuthorizedEntriesResponse{Entries: p.all()}, nil
}

// SyncAuthorizedEntries has so few that they fit into the first answer.
func (p *PlainServer) SyncAuthorizedEntries(stream entryv1.Entry_SyncAuthorizedEntriesServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return stream.Send(&entryv1.SyncAuthorizedEntriesResponse{Entries: p.all()})
}

// BatchNewX509SVID signs for whoever asks.
func (p *PlainServer) BatchNewX509SVID(_ context.Context, request *svidv1.BatchNewX509SVIDRequest) (*svidv1.BatchNewX509SVIDResponse, error) {
	answer := &svidv1.BatchNewX509SVIDResponse{}
	for _, one := range request.Params {
		svid, err := p.svid(ID("/"+one.EntryId), one.Csr)
		if err != nil {
			return nil, err
		}
		answer.Results = append(answer.Results, &svidv1.BatchNewX509SVIDResponse_Result{Status: &types.Status{Message: "OK"}, Svid: svid})
	}
	return answer, nil
}
