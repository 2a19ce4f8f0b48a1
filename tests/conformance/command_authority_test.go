package conformance

import (
	"fmt"
	"strings"
	"testing"

	. "spindle-conformance/harness"
)

func init() {
	for name, group := range map[string]authorityCommands{
		"X509": {"x509", "X.509", x509Family}, "JWT": {"jwt", "JWT", jwtFamily},
	} {
		for verb, run := range map[string]func(*testing.T, authorityCommands){
			"SHOW": authorityShow, "PREPARE": authorityPrepare, "ACTIVATE": authorityActivate, "TAINT": authorityTaint, "REVOKE": authorityRevoke,
		} {
			holds("CMD-LOCALAUTHORITY-"+name+"-"+verb, func(t *testing.T) { run(t, group) })
		}
	}
	holds("CMD-UPSTREAMAUTHORITY-TAINT", upstreamTaint)
	holds("CMD-UPSTREAMAUTHORITY-REVOKE", upstreamRevoke)
}

// authorityCommands are one of the two groups of localauthority commands.
type authorityCommands struct {
	word, title string
	family      family
}

func (k authorityCommands) run(t *testing.T, s *Server, verb string, flags ...string) Result {
	t.Helper()
	return s.Run(t, append([]string{"localauthority", k.word, verb}, flags...)...)
}

func (k authorityCommands) id(t *testing.T, s *Server, verb, field string) string {
	t.Helper()
	id, _ := At(k.run(t, s, verb, "-output", "json").JSON(t), field, "authority_id").(string)
	return id
}

func authorityShow(t *testing.T, k authorityCommands) {
	s := Start(t, Settings{})
	k.run(t, s, "show").Succeeds(t, "Active "+k.title+" authority:\n  Authority ID: ", "  Expires at: ", "No prepared "+k.title+" authority found", "No old "+k.title+" authority found")
	if k.word == "x509" {
		k.run(t, s, "show").Succeeds(t, "  Upstream authority ID: No upstream authority")
	}
	active := k.id(t, s, "show", "active")
	state, _, _ := k.family.state(t, s)
	Equal(t, "the active one", active, state.AuthorityId)
	made := k.run(t, s, "show", "-output", "json").JSON(t)
	_, hasOld := made.(map[string]any)["old"]
	True(t, "what is not there is not printed", !hasOld)
}

func authorityPrepare(t *testing.T, k authorityCommands) {
	s := Start(t, Settings{})
	k.run(t, s, "prepare").Succeeds(t, "Prepared "+k.title+" authority:", "  Authority ID: ", "  Expires at: ")
	prepared := k.id(t, s, "prepare", "prepared_authority")
	k.run(t, s, "show").Succeeds(t, "Prepared "+k.title+" authority:\n  Authority ID: "+prepared)
}

func authorityActivate(t *testing.T, k authorityCommands) {
	s := Start(t, Settings{})
	before := k.id(t, s, "show", "active")
	prepared := k.id(t, s, "prepare", "prepared_authority")
	k.run(t, s, "activate", "-authorityID", prepared).Succeeds(t, "Activated "+k.title+" authority:", "  Authority ID: "+prepared)
	Equal(t, "the old one", k.id(t, s, "show", "old"), before)
	k.run(t, s, "activate").Fails(t, 1, "authority ID is required")
	k.run(t, s, "activate", "-authorityID", "unknown").Fails(t, 1, "unexpected authority ID")
}

func authorityTaint(t *testing.T, k authorityCommands) {
	s, old, active := rotated(t, k.family)
	k.run(t, s, "taint").Fails(t, 1, "authority ID is required")
	k.run(t, s, "taint", "-authorityID", active).Fails(t, 1, "unable to taint current local authority")
	k.run(t, s, "taint", "-authorityID", old).Succeeds(t, "Tainted "+k.title+" authority:", "Authority ID: "+old)
	tainted := s.Run(t, "bundle", "show", "-output", "json").Succeeds(t, `"tainted":true`)
	Equal(t, "the number of tainted ones", strings.Count(tainted.Out, `"tainted":true`), 1)
}

func authorityRevoke(t *testing.T, k authorityCommands) {
	s, old, _ := rotated(t, k.family)
	k.run(t, s, "revoke").Fails(t, 1, "authority ID is required")
	k.run(t, s, "revoke", "-authorityID", old).Fails(t, 1)
	k.run(t, s, "taint", "-authorityID", old).Succeeds(t)
	made := k.run(t, s, "revoke", "-authorityID", old, "-output", "json").JSON(t)
	Equal(t, "the revoked one", At(made, "revoked_authority", "authority_id"), any(old))
	k.family.expectBundle(t, s, old, false, false)
}

func upstreamTaint(t *testing.T) {
	s, first, replace := upstream(t)
	s.Run(t, "localauthority", "x509", "show").Succeeds(t, "  Upstream authority Subject Key ID: "+first)
	s.Run(t, "upstreamauthority", "taint").Fails(t, 1, "the Subject Key ID of the X.509 upstream authority is required")
	s.Run(t, "upstreamauthority", "taint", "-subjectKeyID", first).Fails(t, 1)
	replace()
	k := authorityCommands{"x509", "X.509", x509Family}
	k.run(t, s, "activate", "-authorityID", k.id(t, s, "prepare", "prepared_authority")).Succeeds(t)
	s.Run(t, "upstreamauthority", "taint", "-subjectKeyID", first).Succeeds(t, "Subject Key ID: "+first)
	x509Family.expectBundle(t, s, first, true, true)
	s.Run(t, "upstreamauthority", "taint", "-subjectKeyID", fmt.Sprintf("%040d", 0)).Fails(t, 1)
}

func upstreamRevoke(t *testing.T) {
	s, first, replace := upstream(t)
	replace()
	k := authorityCommands{"x509", "X.509", x509Family}
	k.run(t, s, "activate", "-authorityID", k.id(t, s, "prepare", "prepared_authority")).Succeeds(t)
	s.Run(t, "upstreamauthority", "revoke").Fails(t, 1, "the Subject Key ID of the X.509 upstream authority is required")
	s.Run(t, "upstreamauthority", "revoke", "-subjectKeyID", first).Fails(t, 1)
	s.Run(t, "upstreamauthority", "taint", "-subjectKeyID", first).Succeeds(t)
	s.Run(t, "upstreamauthority", "revoke", "-subjectKeyID", first).Succeeds(t, "Subject Key ID: "+first)
	x509Family.expectBundle(t, s, first, false, false)
}
