package harness

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// AdminLine is the line of an agent's file that opens the admin socket, where Admin looks for it.
const AdminLine = `admin_socket_path = "{DIR}/a/admin.sock"` + "\n"

// Public is a new connection to the agent's public socket.
func (a *AgentProcess) Public(t *testing.T) *grpc.ClientConn {
	t.Helper()
	return dialUnix(t, a.Socket)
}

// Admin is a new connection to the agent's admin socket.
func (a *AgentProcess) Admin(t *testing.T) *grpc.ClientConn {
	t.Helper()
	return dialUnix(t, a.AdminSocket())
}

// AdminSocket is the path of the admin socket, if there is one.
func (a *AgentProcess) AdminSocket() string { return filepath.Join(a.Dir, "a", "admin.sock") }

func dialUnix(t *testing.T, path string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	Must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Workload is a client of the Workload API on a connection of its own.
func (a *AgentProcess) Workload(t *testing.T) workload.SpiffeWorkloadAPIClient {
	t.Helper()
	return workload.NewSpiffeWorkloadAPIClient(a.Public(t))
}

// AsWorkload is a context for calls of the Workload API: with the security header.
func AsWorkload(t *testing.T) context.Context {
	return metadata.AppendToOutgoingContext(Context(t), "workload.spiffe.io", "true")
}

// EntryFor makes an entry for processes of whoever runs the tests on this agent; change may be nil. It returns its id.
func (a *AgentProcess) EntryFor(t *testing.T, path string, change func(*types.Entry)) string {
	t.Helper()
	entry := &types.Entry{
		ParentId:  &types.SPIFFEID{TrustDomain: a.server.TrustDomain, Path: "/spire/agent/join_token/" + a.Token},
		SpiffeId:  &types.SPIFFEID{TrustDomain: a.server.TrustDomain, Path: path},
		Selectors: []*types.Selector{{Type: "unix", Value: fmt.Sprintf("uid:%d", os.Getuid())}},
	}
	if change != nil {
		change(entry)
	}
	answer, err := entryv1.NewEntryClient(a.server.Local(t)).BatchCreateEntry(Context(t), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{entry}})
	Must(t, err)
	Item(t, answer.Results[0].Status, codes.OK)
	return answer.Results[0].Entry.GetId()
}

// DeleteEntry deletes an entry by its id.
func (s *Server) DeleteEntry(t *testing.T, id string) {
	t.Helper()
	answer, err := entryv1.NewEntryClient(s.Local(t)).BatchDeleteEntry(Context(t), &entryv1.BatchDeleteEntryRequest{Ids: []string{id}})
	Must(t, err)
	Item(t, answer.Results[0].Status, codes.OK)
}

// DeleteEntries deletes all entries.
func (s *Server) DeleteEntries(t *testing.T) {
	t.Helper()
	answer, err := entryv1.NewEntryClient(s.Local(t)).ListEntries(Context(t), &entryv1.ListEntriesRequest{})
	Must(t, err)
	for _, entry := range answer.Entries {
		s.DeleteEntry(t, entry.Id)
	}
}

// ReadJWT is header and claims of a token, which is not verified.
func ReadJWT(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	Equal(t, "the parts of the token", len(parts), 3)
	for i, into := range []*map[string]any{&header, &claims} {
		decoded, err := base64.RawURLEncoding.DecodeString(parts[i])
		Must(t, err)
		Must(t, json.Unmarshal(decoded, into))
	}
	return header, claims
}

// Stream is what a client reads from, such as a stream of X509-SVIDs.
type Stream[M any] interface{ Recv() (*M, error) }

// Next is the next message of a stream.
func Next[M any](t *testing.T, stream Stream[M]) *M {
	t.Helper()
	message, err := stream.Recv()
	if err != nil {
		t.Fatalf("the stream ended: %v", err)
	}
	return message
}

// NextThat reads messages until one is as wanted.
func NextThat[M any](t *testing.T, stream Stream[M], what string, isSo func(*M) bool) *M {
	t.Helper()
	for {
		message, err := stream.Recv()
		if err != nil {
			t.Fatalf("the stream ended before %s: %v", what, err)
		}
		if isSo(message) {
			return message
		}
	}
}

// EndOf reads a stream to its end and returns how it ended; nil is a good end.
func EndOf[M any](stream Stream[M]) error {
	for {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// First is the first message that a call with these arguments is answered with, or how it was refused.
func First[R, M any](t *testing.T, ctx context.Context, call func(context.Context, *R, ...grpc.CallOption) (grpc.ServerStreamingClient[M], error)) (*M, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := call(ctx, new(R))
	Must(t, err)
	return stream.Recv()
}

// SVIDOf reads chain and key of an X509-SVID, checks that they belong together and that the bundle vouches for the SPIFFE ID.
func SVIDOf(t *testing.T, svid *workload.X509SVID) *x509.Certificate {
	t.Helper()
	return Vouched(t, svid.SpiffeId, svid.X509Svid, svid.X509SvidKey, svid.Bundle)
}

// Vouched is SVIDOf for the parts of an SVID.
func Vouched(t *testing.T, id string, chain, key, bundle []byte) *x509.Certificate {
	t.Helper()
	certificates, err := x509.ParseCertificates(chain)
	Must(t, err)
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	Must(t, err)
	public, is := certificates[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	True(t, "the key is the certificate's", is && public.Equal(parsed.(crypto.Signer).Public()))
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	roots, err := x509.ParseCertificates(bundle)
	Must(t, err)
	for _, root := range roots {
		options.Roots.AddCert(root)
	}
	for _, link := range certificates[1:] {
		options.Intermediates.AddCert(link)
	}
	_, err = certificates[0].Verify(options)
	Must(t, err)
	True(t, "the certificate names "+id, len(certificates[0].URIs) == 1 && certificates[0].URIs[0].String() == id)
	return certificates[0]
}

// KeyIDs are the keys of a JWK set by their id, each as the members it has.
func KeyIDs(t *testing.T, document []byte) map[string]map[string]any {
	t.Helper()
	var set struct{ Keys []map[string]any }
	Must(t, json.Unmarshal(document, &set))
	keys := map[string]map[string]any{}
	for _, key := range set.Keys {
		id, _ := key["kid"].(string)
		keys[id] = key
	}
	return keys
}
