package conformance

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	authorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"google.golang.org/grpc/codes"

	. "spindle-conformance/harness"
)

func init() {
	holds("RPC-LOCALAUTHORITY-X509_STATE", func(t *testing.T) { authorityState(t, x509Family) })
	holds("RPC-LOCALAUTHORITY-X509_PREPARE", func(t *testing.T) { prepareAuthority(t, x509Family) })
	holds("RPC-LOCALAUTHORITY-X509_ACTIVATE", func(t *testing.T) { activateAuthority(t, x509Family) })
	holds("RPC-LOCALAUTHORITY-X509_TAINT", func(t *testing.T) { taintAuthority(t, x509Family) })
	holds("RPC-LOCALAUTHORITY-X509_REVOKE", func(t *testing.T) { revokeAuthority(t, x509Family) })
	holds("RPC-LOCALAUTHORITY-X509_TAINT_UPSTREAM", taintUpstream)
	holds("RPC-LOCALAUTHORITY-X509_REVOKE_UPSTREAM", revokeUpstream)
	holds("RPC-LOCALAUTHORITY-JWT_STATE", func(t *testing.T) { authorityState(t, jwtFamily) })
	holds("RPC-LOCALAUTHORITY-JWT_PREPARE", func(t *testing.T) { prepareAuthority(t, jwtFamily) })
	holds("RPC-LOCALAUTHORITY-JWT_ACTIVATE", func(t *testing.T) { activateAuthority(t, jwtFamily) })
	holds("RPC-LOCALAUTHORITY-JWT_TAINT", func(t *testing.T) { taintAuthority(t, jwtFamily) })
	holds("RPC-LOCALAUTHORITY-JWT_REVOKE", func(t *testing.T) { revokeAuthority(t, jwtFamily) })
	for name, run := range map[string]func(*testing.T, family){
		"STATE": authorityState, "PREPARE": prepareAuthority, "ACTIVATE": activateAuthority, "TAINT": taintAuthority, "REVOKE": revokeAuthority,
	} {
		holds("RPC-LOCALAUTHORITY-WIT_"+name, func(t *testing.T) {
			if Stock() {
				t.Skip("SPIRE has WIT authorities, but no calls about them")
			}
			run(t, witFamily)
			Refused(t, witCalls[name](t, authoritiesOf(t, Start(t, Settings{}))), codes.Unimplemented, "WIT functionality is disabled")
		})
	}
}

func authoritiesOf(t *testing.T, s *Server) authorityv1.LocalAuthorityClient {
	return authorityv1.NewLocalAuthorityClient(s.Local(t))
}

type authority = authorityv1.AuthorityState

// family is one of the three kinds of authority: the same calls under three names.
type family struct {
	// settings are those of a server that has it.
	settings Settings
	state    func(*testing.T, *Server) (active, prepared, old *authority)
	prepare  func(*testing.T, *Server) *authority
	activate func(t *testing.T, s *Server, id string) (*authority, error)
	taint    func(t *testing.T, s *Server, id string) (*authority, error)
	revoke   func(t *testing.T, s *Server, id string) (*authority, error)
	// inBundle tells whether the bundle has the authority, and whether it is tainted there.
	inBundle func(t *testing.T, s *Server, id string) (has, tainted bool)
	// signer is the authority that signs now.
	signer func(t *testing.T, s *Server) string
}

var x509Family = family{
	state: func(t *testing.T, s *Server) (*authority, *authority, *authority) {
		answer, err := authoritiesOf(t, s).GetX509AuthorityState(Context(t), &authorityv1.GetX509AuthorityStateRequest{})
		Must(t, err)
		return answer.Active, answer.Prepared, answer.Old
	},
	prepare: func(t *testing.T, s *Server) *authority {
		answer, err := authoritiesOf(t, s).PrepareX509Authority(Context(t), &authorityv1.PrepareX509AuthorityRequest{})
		Must(t, err)
		return answer.PreparedAuthority
	},
	activate: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).ActivateX509Authority(Context(t), &authorityv1.ActivateX509AuthorityRequest{AuthorityId: id})
		return answer.GetActivatedAuthority(), err
	},
	taint: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).TaintX509Authority(Context(t), &authorityv1.TaintX509AuthorityRequest{AuthorityId: id})
		return answer.GetTaintedAuthority(), err
	},
	revoke: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).RevokeX509Authority(Context(t), &authorityv1.RevokeX509AuthorityRequest{AuthorityId: id})
		return answer.GetRevokedAuthority(), err
	},
	inBundle: func(t *testing.T, s *Server, id string) (bool, bool) {
		for _, authority := range s.Bundle(t).X509Authorities {
			certificate, err := x509.ParseCertificate(authority.Asn1)
			Must(t, err)
			if hex.EncodeToString(certificate.SubjectKeyId) == id {
				return true, authority.Tainted
			}
		}
		return false, false
	},
	signer: func(t *testing.T, s *Server) string {
		return hex.EncodeToString(s.Mint(t, "/probe", 60).Leaf().AuthorityKeyId)
	},
}

var jwtFamily = family{
	state: func(t *testing.T, s *Server) (*authority, *authority, *authority) {
		answer, err := authoritiesOf(t, s).GetJWTAuthorityState(Context(t), &authorityv1.GetJWTAuthorityStateRequest{})
		Must(t, err)
		return answer.Active, answer.Prepared, answer.Old
	},
	prepare: func(t *testing.T, s *Server) *authority {
		answer, err := authoritiesOf(t, s).PrepareJWTAuthority(Context(t), &authorityv1.PrepareJWTAuthorityRequest{})
		Must(t, err)
		return answer.PreparedAuthority
	},
	activate: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).ActivateJWTAuthority(Context(t), &authorityv1.ActivateJWTAuthorityRequest{AuthorityId: id})
		return answer.GetActivatedAuthority(), err
	},
	taint: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).TaintJWTAuthority(Context(t), &authorityv1.TaintJWTAuthorityRequest{AuthorityId: id})
		return answer.GetTaintedAuthority(), err
	},
	revoke: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).RevokeJWTAuthority(Context(t), &authorityv1.RevokeJWTAuthorityRequest{AuthorityId: id})
		return answer.GetRevokedAuthority(), err
	},
	inBundle: func(t *testing.T, s *Server, id string) (bool, bool) {
		for _, key := range s.Bundle(t).JwtAuthorities {
			if key.KeyId == id {
				return true, key.Tainted
			}
		}
		return false, false
	},
	signer: func(t *testing.T, s *Server) string {
		answer, err := svidsOf(t, s).MintJWTSVID(Context(t), &svidv1.MintJWTSVIDRequest{Id: ID("/probe"), Audience: []string{"x"}})
		Must(t, err)
		header, _ := claims(t, s, answer.Svid.Token)
		return fmt.Sprint(header["kid"])
	},
}

// witSVIDs switches WIT-SVIDs on.
var witSVIDs = Settings{Server: `experimental { feature_flags = ["wit-svid"] }`}

var witFamily = family{
	settings: witSVIDs,
	state: func(t *testing.T, s *Server) (*authority, *authority, *authority) {
		answer, err := authoritiesOf(t, s).GetWITAuthorityState(Context(t), &authorityv1.GetWITAuthorityStateRequest{})
		Must(t, err)
		return answer.Active, answer.Prepared, answer.Old
	},
	prepare: func(t *testing.T, s *Server) *authority {
		answer, err := authoritiesOf(t, s).PrepareWITAuthority(Context(t), &authorityv1.PrepareWITAuthorityRequest{})
		Must(t, err)
		return answer.PreparedAuthority
	},
	activate: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).ActivateWITAuthority(Context(t), &authorityv1.ActivateWITAuthorityRequest{AuthorityId: id})
		return answer.GetActivatedAuthority(), err
	},
	taint: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).TaintWITAuthority(Context(t), &authorityv1.TaintWITAuthorityRequest{AuthorityId: id})
		return answer.GetTaintedAuthority(), err
	},
	revoke: func(t *testing.T, s *Server, id string) (*authority, error) {
		answer, err := authoritiesOf(t, s).RevokeWITAuthority(Context(t), &authorityv1.RevokeWITAuthorityRequest{AuthorityId: id})
		return answer.GetRevokedAuthority(), err
	},
	inBundle: func(t *testing.T, s *Server, id string) (bool, bool) {
		for _, key := range s.Bundle(t).WitAuthorities {
			if key.KeyId == id {
				return true, key.Tainted
			}
		}
		return false, false
	},
	signer: func(t *testing.T, s *Server) string {
		answer, err := svidsOf(t, s).MintWITSVID(Context(t), witRequest(t, ID("/probe"), 0))
		Must(t, err)
		header, _ := witClaims(t, s, answer.Svid.Token)
		return fmt.Sprint(header["kid"])
	},
}

func (f family) expectBundle(t *testing.T, s *Server, id string, has, tainted bool) {
	t.Helper()
	Eventually(t, fmt.Sprintf("the bundle has %s: %v, tainted: %v", id, has, tainted), func() bool {
		isThere, isTainted := f.inBundle(t, s, id)
		return isThere == has && isTainted == tainted
	})
}

func authorityState(t *testing.T, f family) {
	s := Start(t, f.settings)
	active, prepared, old := f.state(t, s)
	True(t, "one authority at first", active != nil && prepared == nil && old == nil)
	True(t, "it has an end", active.GetExpiresAt() > 0)
	Equal(t, "the one that signs", f.signer(t, s), active.AuthorityId)
	f.expectBundle(t, s, active.AuthorityId, true, false)
	next := f.prepare(t, s)
	_, prepared, old = f.state(t, s)
	True(t, "a prepared one", prepared.GetAuthorityId() == next.AuthorityId && old == nil)
	_, err := f.activate(t, s, next.AuthorityId)
	Must(t, err)
	now, prepared, old := f.state(t, s)
	True(t, "the one before is old", now.AuthorityId == next.AuthorityId && prepared == nil && old.GetAuthorityId() == active.AuthorityId)
}

func prepareAuthority(t *testing.T, f family) {
	s := Start(t, f.settings)
	active, _, _ := f.state(t, s)
	first := f.prepare(t, s)
	True(t, "a new authority", first.AuthorityId != active.AuthorityId && first.ExpiresAt > 0)
	f.expectBundle(t, s, first.AuthorityId, true, false)
	Equal(t, "the one that signs", f.signer(t, s), active.AuthorityId)
	second := f.prepare(t, s)
	True(t, "preparing again makes another one", second.AuthorityId != first.AuthorityId)
	_, prepared, _ := f.state(t, s)
	Equal(t, "the prepared one", prepared.GetAuthorityId(), second.AuthorityId)
}

func activateAuthority(t *testing.T, f family) {
	s := Start(t, f.settings)
	active, _, _ := f.state(t, s)
	_, err := f.activate(t, s, "")
	Refused(t, err, codes.InvalidArgument, "no authority ID provided")
	_, err = f.activate(t, s, active.AuthorityId)
	Refused(t, err, codes.InvalidArgument, "unexpected authority ID")
	next := f.prepare(t, s)
	_, err = f.activate(t, s, "unknown")
	Refused(t, err, codes.InvalidArgument, "unexpected authority ID")
	activated, err := f.activate(t, s, next.AuthorityId)
	Must(t, err)
	Equal(t, "the activated one", activated.AuthorityId, next.AuthorityId)
	Equal(t, "the one that signs", f.signer(t, s), next.AuthorityId)
	f.expectBundle(t, s, active.AuthorityId, true, false)
	_, err = f.activate(t, s, active.AuthorityId)
	Refused(t, err, codes.Internal, "only Prepared authorities can be activated")
}

// rotated is a server whose first authority is old.
func rotated(t *testing.T, f family) (s *Server, old, active string) {
	t.Helper()
	s = Start(t, f.settings)
	first, _, _ := f.state(t, s)
	next := f.prepare(t, s)
	_, err := f.activate(t, s, next.AuthorityId)
	Must(t, err)
	return s, first.AuthorityId, next.AuthorityId
}

func taintAuthority(t *testing.T, f family) {
	s, old, active := rotated(t, f)
	before := s.Bundle(t).SequenceNumber
	_, err := f.taint(t, s, "")
	Refused(t, err, codes.InvalidArgument, "no authority ID provided")
	_, err = f.taint(t, s, active)
	Refused(t, err, codes.InvalidArgument, "unable to taint current local authority")
	_, err = f.taint(t, s, "unknown")
	Refused(t, err, codes.InvalidArgument, "unexpected authority ID")
	tainted, err := f.taint(t, s, old)
	Must(t, err)
	Equal(t, "the tainted one", tainted.AuthorityId, old)
	f.expectBundle(t, s, old, true, true)
	Eventually(t, "the bundle has a newer number", func() bool { return s.Bundle(t).SequenceNumber > before })
	_, err = f.taint(t, s, old)
	True(t, "an authority is tainted once", err != nil)
	next := f.prepare(t, s)
	_, err = f.taint(t, s, next.AuthorityId)
	Refused(t, err, codes.InvalidArgument, "only Old local authorities can be tainted")
}

func revokeAuthority(t *testing.T, f family) {
	s, old, active := rotated(t, f)
	_, err := f.revoke(t, s, "")
	Refused(t, err, codes.InvalidArgument, "invalid authority ID")
	_, err = f.revoke(t, s, active)
	Refused(t, err, codes.InvalidArgument, "invalid authority ID")
	_, err = f.revoke(t, s, old)
	True(t, "only a tainted authority is revoked", err != nil)
	f.expectBundle(t, s, old, true, false)
	_, err = f.taint(t, s, old)
	Must(t, err)
	revoked, err := f.revoke(t, s, old)
	Must(t, err)
	Equal(t, "the revoked one", revoked.AuthorityId, old)
	f.expectBundle(t, s, old, false, false)
	f.expectBundle(t, s, active, true, false)
	Equal(t, "the one that signs", f.signer(t, s), active)
}

// upstream is a server below an authority on disk.
func upstream(t *testing.T) (s *Server, subjectKeyID string, replace func() string) {
	t.Helper()
	s = Prepare(t, Settings{})
	write := func() string {
		certificate, key := Authority(t, "upstream.example")
		der, err := x509.MarshalPKCS8PrivateKey(key.(*ecdsa.PrivateKey))
		Must(t, err)
		s.WriteFile(t, "upstream.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})))
		s.WriteFile(t, "upstream.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
		return hex.EncodeToString(certificate.SubjectKeyId)
	}
	subjectKeyID = write()
	s.WriteConfig(t, Settings{Plugins: fmt.Sprintf(`UpstreamAuthority "disk" { plugin_data { cert_file_path = "%[1]s/upstream.pem"
		key_file_path = "%[1]s/upstream.key" } }`, s.Dir)})
	s.Boot(t)
	return s, subjectKeyID, write
}

func taintUpstream(t *testing.T) {
	taint := func(s *Server, id string) (string, error) {
		answer, err := authoritiesOf(t, s).TaintX509UpstreamAuthority(Context(t), &authorityv1.TaintX509UpstreamAuthorityRequest{SubjectKeyId: id})
		return answer.GetUpstreamAuthoritySubjectKeyId(), err
	}
	_, err := taint(Start(t, Settings{}), "00")
	Refused(t, err, codes.FailedPrecondition, "upstream authority is not configured")
	s, first, replace := upstream(t)
	active, _, _ := x509Family.state(t, s)
	Equal(t, "the upstream of the active authority", active.UpstreamAuthoritySubjectKeyId, first)
	_, err = taint(s, "")
	Refused(t, err, codes.InvalidArgument, "subject key id is not valid")
	_, err = taint(s, first)
	Refused(t, err, codes.InvalidArgument, "subject key id is not valid")
	_, err = x509Family.taint(t, s, active.AuthorityId)
	Refused(t, err, codes.FailedPrecondition, "local authority can't be tainted if there is an upstream authority")
	second := replace()
	next := x509Family.prepare(t, s)
	Equal(t, "the upstream of the prepared authority", next.UpstreamAuthoritySubjectKeyId, second)
	_, err = x509Family.activate(t, s, next.AuthorityId)
	Must(t, err)
	id, err := taint(s, strings.ToUpper(first))
	Must(t, err)
	Equal(t, "the tainted one", id, first)
	x509Family.expectBundle(t, s, first, true, true)
	x509Family.expectBundle(t, s, second, true, false)
}

func revokeUpstream(t *testing.T) {
	revoke := func(s *Server, id string) (string, error) {
		answer, err := authoritiesOf(t, s).RevokeX509UpstreamAuthority(Context(t), &authorityv1.RevokeX509UpstreamAuthorityRequest{SubjectKeyId: id})
		return answer.GetUpstreamAuthoritySubjectKeyId(), err
	}
	_, err := revoke(Start(t, Settings{}), "00")
	Refused(t, err, codes.FailedPrecondition, "upstream authority is not configured")
	s, first, replace := upstream(t)
	_, err = revoke(s, first)
	Refused(t, err, codes.InvalidArgument, "invalid subject key ID")
	replace()
	next := x509Family.prepare(t, s)
	_, err = x509Family.activate(t, s, next.AuthorityId)
	Must(t, err)
	_, err = revoke(s, first)
	True(t, "only a tainted upstream authority is revoked", err != nil)
	_, err = authoritiesOf(t, s).TaintX509UpstreamAuthority(Context(t), &authorityv1.TaintX509UpstreamAuthorityRequest{SubjectKeyId: first})
	Must(t, err)
	id, err := revoke(s, first)
	Must(t, err)
	Equal(t, "the revoked one", id, first)
	x509Family.expectBundle(t, s, first, false, false)
	old, err := x509Family.revoke(t, s, next.AuthorityId)
	Refused(t, err, codes.FailedPrecondition, "local authority can't be revoked if there is an upstream authority")
	True(t, "nothing in a refusal", old == nil)
}

var witCalls = map[string]func(*testing.T, authorityv1.LocalAuthorityClient) error{
	"STATE": func(t *testing.T, client authorityv1.LocalAuthorityClient) error {
		_, err := client.GetWITAuthorityState(Context(t), &authorityv1.GetWITAuthorityStateRequest{})
		return err
	},
	"PREPARE": func(t *testing.T, client authorityv1.LocalAuthorityClient) error {
		_, err := client.PrepareWITAuthority(Context(t), &authorityv1.PrepareWITAuthorityRequest{})
		return err
	},
	"ACTIVATE": func(t *testing.T, client authorityv1.LocalAuthorityClient) error {
		_, err := client.ActivateWITAuthority(Context(t), &authorityv1.ActivateWITAuthorityRequest{})
		return err
	},
	"TAINT": func(t *testing.T, client authorityv1.LocalAuthorityClient) error {
		_, err := client.TaintWITAuthority(Context(t), &authorityv1.TaintWITAuthorityRequest{})
		return err
	},
	"REVOKE": func(t *testing.T, client authorityv1.LocalAuthorityClient) error {
		_, err := client.RevokeWITAuthority(Context(t), &authorityv1.RevokeWITAuthorityRequest{})
		return err
	},
}
