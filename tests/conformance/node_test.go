package conformance

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // fingerprints are made with it
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"testing"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"

	. "spindle-conformance/harness"
)

// node is a machine with a certificate of its own authority, as x509pop wants it.
type node struct {
	der         []byte
	key         *ecdsa.PrivateKey
	bundle      string
	fingerprint string
}

func newNode(t *testing.T, s *Server) *node {
	t.Helper()
	authority, authorityKey := Authority(t, "nodes.example")
	key := NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(255), Subject: pkix.Name{CommonName: "node"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), authorityKey)
	Must(t, err)
	fingerprint := sha1.Sum(der) //nolint:gosec
	name := hex.EncodeToString(fingerprint[:])
	bundle := s.WriteFile(t, "nodes-"+name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw})))
	return &node{der, key, bundle, name}
}

type nonce struct {
	Nonce []byte `json:"nonce"`
}

type signed struct {
	Nonce []byte `json:"nonce"`
	R     []byte `json:"r"`
	S     []byte `json:"s"`
}

// tryAttest plays the agent's half of x509pop.
func (n *node) tryAttest(t *testing.T, s *Server) (*Agent, error) {
	t.Helper()
	payload, err := json.Marshal(map[string][][]byte{"certificates": {n.der}})
	Must(t, err)
	stream, err := agentv1.NewAgentClient(s.Dial(t, nil)).AttestAgent(Context(t))
	Must(t, err)
	key := NewKey(t)
	Must(t, stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: "x509pop", Payload: payload},
		Params: &agentv1.AgentX509SVIDParams{Csr: CSR(t, key, nil)},
	}}}))
	challenge, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var asked struct {
		ECDSA *nonce `json:"ecdsa_signature"`
	}
	Must(t, json.Unmarshal(challenge.GetChallenge(), &asked))
	if asked.ECDSA == nil {
		return nil, errors.New("no challenge for an ECDSA key: " + string(challenge.GetChallenge()))
	}
	mine := make([]byte, 32)
	_, err = rand.Read(mine)
	Must(t, err)
	digest := sha256.Sum256(append(append([]byte{}, asked.ECDSA.Nonce...), mine...))
	r, q, err := ecdsa.Sign(rand.Reader, n.key, digest[:])
	Must(t, err)
	response, err := json.Marshal(map[string]signed{"ecdsa_signature": {mine, r.Bytes(), q.Bytes()}})
	Must(t, err)
	Must(t, stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_ChallengeResponse{ChallengeResponse: response}}))
	answer, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	identity := ParseIdentity(t, answer.GetResult().Svid, key)
	return &Agent{Identity: *identity, Conn: s.Dial(t, identity)}, nil
}

func (n *node) attest(t *testing.T, s *Server) *Agent {
	t.Helper()
	agent, err := n.tryAttest(t, s)
	Must(t, err)
	return agent
}
