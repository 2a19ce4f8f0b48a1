package conformance

import (
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"

	. "spindle-conformance/harness"
)

func init() {
	holds("CMD-BUNDLE-SHOW", bundleShow)
	holds("CMD-BUNDLE-LIST", bundleList)
	holds("CMD-BUNDLE-SET", bundleSet)
	holds("CMD-BUNDLE-DELETE", bundleDelete)
	holds("CMD-BUNDLE-COUNT", bundleCount)
	holds("CMD-FEDERATION-CREATE", federationCreate)
	holds("CMD-FEDERATION-UPDATE", federationUpdate)
	holds("CMD-FEDERATION-SHOW", federationShow)
	holds("CMD-FEDERATION-LIST", federationList)
	holds("CMD-FEDERATION-DELETE", federationDelete)
	absent("CMD-FEDERATION-REFRESH", federationRefresh)
}

func authorityPEM(t *testing.T, name string) string {
	certificate, _ := Authority(t, name)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}))
}

func authorityDocument(t *testing.T, name string) string {
	certificate, _ := Authority(t, name)
	return fmt.Sprintf(`{"spiffe_sequence": 3, "spiffe_refresh_hint": 90, "keys": [%s, %s]}`, jwkOf(t, certificate), jwkOfKey(t, "kid"))
}

func bundleShow(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "bundle", "show").Succeeds(t, "-----BEGIN CERTIFICATE-----")
	s.Run(t, "bundle", "show", "-format", "spiffe").Succeeds(t, `"use": "x509-svid"`, `"use": "jwt-svid"`, `"spiffe_sequence"`)
	made := s.Run(t, "bundle", "show", "-output", "json").JSON(t)
	Equal(t, "the trust domain", At(made, "trust_domain"), any("example.org"))
	Equal(t, "whether an authority is tainted", At(made, "x509_authorities", 0, "tainted"), any(false))
	kid, _ := At(made, "jwt_authorities", 0, "key_id").(string)
	Equal(t, "the length of a key id", len(kid), 32)
	Equal(t, "the WIT authorities", At(made, "wit_authorities"), any([]any{}))
	s.Run(t, "bundle", "show", "-format", "der").Fails(t, 1, "der")
}

func bundleSet(t *testing.T) {
	s := Start(t, Settings{})
	one := authorityPEM(t, "one.example")
	s.RunWith(t, one, "bundle", "set", "-id", "spiffe://one.example").Succeeds(t, "bundle set.")
	file := s.WriteFile(t, "two.json", authorityDocument(t, "two.example"))
	s.Run(t, "bundle", "set", "-id", "spiffe://two.example", "-format", "spiffe", "-path", file).Succeeds(t, "bundle set.")
	found, err := bundlesOf(t, s).GetFederatedBundle(Context(t), &bundlev1.GetFederatedBundleRequest{TrustDomain: "two.example"})
	Must(t, err)
	True(t, "certificate and key", len(found.X509Authorities) == 1 && len(found.JwtAuthorities) == 1)
	made := s.RunWith(t, one, "bundle", "set", "-id", "spiffe://three.example", "-output", "json").JSON(t)
	Equal(t, "the code", At(made, "results", 0, "status", "code"), any(0.0))
	s.RunWith(t, one, "bundle", "set").Fails(t, 1, "id flag is required")
	s.RunWith(t, "", "bundle", "set", "-id", "spiffe://one.example").Fails(t, 1)
	s.RunWith(t, "{}", "bundle", "set", "-id", "spiffe://one.example", "-format", "jwks").Fails(t, 1, "jwks")
	s.RunWith(t, one, "bundle", "set", "-id", "spiffe://example.org").Fails(t, 1, "own trust domain is not allowed")
	s.Run(t, "bundle", "set", "-id", "spiffe://one.example", "-path", s.Dir+"/none").Fails(t, 1, "none")
}

func bundleList(t *testing.T) {
	s := Start(t, Settings{})
	for _, name := range []string{"one.example", "two.example"} {
		s.RunWith(t, authorityPEM(t, name), "bundle", "set", "-id", "spiffe://"+name).Succeeds(t)
	}
	box := strings.Repeat("*", 40)
	s.Run(t, "bundle", "list").Succeeds(t, box+"\n* one.example\n"+box, "* two.example", "-----BEGIN CERTIFICATE-----")
	s.Run(t, "bundle", "list", "-format", "spiffe").Succeeds(t, `"keys"`)
	one := s.Run(t, "bundle", "list", "-id", "spiffe://two.example").Succeeds(t, "-----BEGIN CERTIFICATE-----")
	True(t, "only the one that was asked for", !strings.Contains(one.Out, "one.example"))
	made := s.Run(t, "bundle", "list", "-output", "json").JSON(t)
	Equal(t, "the first", At(made, "bundles", 0, "trust_domain"), any("one.example"))
	made = s.Run(t, "bundle", "list", "-id", "spiffe://two.example", "-output", "json").JSON(t)
	Equal(t, "the bundle itself", At(made, "trust_domain"), any("two.example"))
	s.Run(t, "bundle", "list", "-id", "spiffe://none.example").Fails(t, 1, "bundle not found")
}

func bundleDelete(t *testing.T) {
	s := Start(t, Settings{})
	setForeignBundle(t, s, "one.example")
	setForeignBundle(t, s, "two.example")
	for i, name := range []string{"one.example", "two.example"} {
		made := entry("/n", fmt.Sprintf("/w%d", i), "a:1")
		made.FederatesWith = []string{name}
		create(t, s, made)
	}
	remove := func(flags ...string) Result { return s.Run(t, append([]string{"bundle", "delete"}, flags...)...) }
	remove("-id", "spiffe://one.example").Fails(t, 1, "failed to delete federated bundle", "one.example")
	made := remove("-id", "spiffe://one.example", "-output", "json").JSON(t)
	Equal(t, "the code", At(made, "results", 0, "status", "code"), any(9.0))
	remove("-id", "spiffe://one.example", "-mode", "dissociate").Succeeds(t, "bundle deleted.")
	s.Run(t, "entry", "count").Succeeds(t, "2 registration entries")
	remove("-id", "spiffe://two.example", "-mode", "delete").Succeeds(t, "bundle deleted.")
	s.Run(t, "entry", "count").Succeeds(t, "1 registration entry")
	remove("-id", "spiffe://none.example").Fails(t, 1, "not found")
	remove().Fails(t, 1, "id is required")
	remove("-id", "spiffe://one.example", "-mode", "maybe").Fails(t, 1, "maybe")
}

func bundleCount(t *testing.T) {
	s := Start(t, Settings{})
	Equal(t, "the server's own", s.Run(t, "bundle", "count").Succeeds(t).Out, "1 bundle\n")
	setForeignBundle(t, s, "one.example")
	Equal(t, "and another", s.Run(t, "bundle", "count").Succeeds(t).Out, "2 bundles\n")
	Equal(t, "the count", At(s.Run(t, "bundle", "count", "-output", "json").JSON(t), "count"), any(2.0))
}

var relationshipFlags = []string{"-trustDomain", "one.example", "-bundleEndpointURL", "https://one.example/bundle", "-bundleEndpointProfile", "https_web"}

func federationCreate(t *testing.T) {
	s := Start(t, Settings{})
	create := func(flags ...string) Result { return s.Run(t, append([]string{"federation", "create"}, flags...)...) }
	made := create(relationshipFlags...).Succeeds(t)
	label(t, made, "Trust domain", "one.example")
	label(t, made, "Bundle endpoint URL", "https://one.example/bundle")
	label(t, made, "Bundle endpoint profile", "https_web")
	create(relationshipFlags...).Fails(t, 1, "Failed to create the following federation relationship", "failed to create one or more federation relationships")
	file := s.WriteFile(t, "two.pem", authorityPEM(t, "two.example"))
	spiffe := create("-trustDomain", "two.example", "-bundleEndpointURL", "https://two.example/", "-bundleEndpointProfile", "https_spiffe",
		"-endpointSpiffeID", "spiffe://two.example/e", "-trustDomainBundlePath", file).Succeeds(t)
	label(t, spiffe, "Endpoint SPIFFE ID", "spiffe://two.example/e")
	s.Run(t, "bundle", "list", "-id", "spiffe://two.example").Succeeds(t, "BEGIN CERTIFICATE")
	data := `{"federationRelationships": [{"trustDomain": "three.example", "bundleEndpointURL": "https://three.example/", "bundleEndpointProfile": "https_web"}]}`
	label(t, s.RunWith(t, data, "federation", "create", "-data", "-").Succeeds(t), "Trust domain", "three.example")
	json := create("-trustDomain", "four.example", "-bundleEndpointURL", "https://four.example/", "-bundleEndpointProfile", "https_web", "-output", "json").JSON(t)
	Equal(t, "the trust domain", At(json, "results", 0, "federation_relationship", "trust_domain"), any("four.example"))
	create(relationshipFlags[2:]...).Fails(t, 1, "trust domain is required")
	create("-trustDomain", "x.example", "-bundleEndpointProfile", "https_web").Fails(t, 1, "bundle endpoint URL is required")
	create(append(relationshipFlags[:4:4], "-bundleEndpointProfile", "http")...).Fails(t, 1, "http")
	create(append(relationshipFlags[:4:4], "-bundleEndpointProfile", "https_spiffe")...).Fails(t, 1, "endpoint SPIFFE ID is required")
	create(append(relationshipFlags, "-data", file)...).Fails(t, 1, "cannot use other flags")
}

func federationUpdate(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, append([]string{"federation", "create"}, relationshipFlags...)...).Succeeds(t)
	update := func(flags ...string) Result { return s.Run(t, append([]string{"federation", "update"}, flags...)...) }
	changed := update("-trustDomain", "one.example", "-bundleEndpointURL", "https://other.example/", "-bundleEndpointProfile", "https_spiffe", "-endpointSpiffeID", "spiffe://one.example/e").Succeeds(t)
	label(t, changed, "Bundle endpoint URL", "https://other.example/")
	label(t, changed, "Endpoint SPIFFE ID", "spiffe://one.example/e")
	update("-trustDomain", "none.example", "-bundleEndpointURL", "https://other.example/", "-bundleEndpointProfile", "https_web").Fails(t, 1, "Failed to update the following federation relationship", "failed to update one or more federation relationships")
	update("-trustDomain", "one.example").Fails(t, 1, "bundle endpoint URL is required")
}

func federationShow(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, append([]string{"federation", "create"}, relationshipFlags...)...).Succeeds(t)
	label(t, s.Run(t, "federation", "show", "-trustDomain", "one.example").Succeeds(t, "Found a federation relationship with trust domain one.example:"), "Trust domain", "one.example")
	made := s.Run(t, "federation", "show", "-trustDomain", "one.example", "-output", "json").JSON(t)
	Equal(t, "the address", At(made, "bundle_endpoint_url"), any("https://one.example/bundle"))
	True(t, "the profile", At(made, "https_web") != nil)
	s.Run(t, "federation", "show", "-trustDomain", "none.example").Fails(t, 1, "does not exist")
	s.Run(t, "federation", "show").Fails(t, 1, "a trust domain name is required")
}

func federationList(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "federation", "list").Succeeds(t, "Found 0 federation relationships")
	s.Run(t, append([]string{"federation", "create"}, relationshipFlags...)...).Succeeds(t)
	label(t, s.Run(t, "federation", "list").Succeeds(t, "Found 1 federation relationship\n"), "Trust domain", "one.example")
	made := s.Run(t, "federation", "list", "-output", "json").JSON(t)
	Equal(t, "the trust domain", At(made, "federation_relationships", 0, "trust_domain"), any("one.example"))
}

func federationDelete(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, append([]string{"federation", "create"}, relationshipFlags...)...).Succeeds(t)
	s.Run(t, "federation", "delete", "-id", "one.example").Succeeds(t, "federation relationship deleted.")
	s.Run(t, "federation", "delete", "-id", "one.example").Fails(t, 1, `failed to delete federation relationship "one.example"`)
	s.Run(t, "federation", "delete").Fails(t, 1, "id is required")
}

func federationRefresh(t *testing.T) {
	s := Start(t, Settings{})
	s.Run(t, "federation", "refresh", "-id", "none.example").Fails(t, 1, `there is no federation relationship with trust domain "none.example"`)
	s.Run(t, "federation", "refresh").Fails(t, 1, "id is required")
	s.Run(t, append([]string{"federation", "create"}, relationshipFlags...)...).Succeeds(t)
	s.Run(t, "federation", "refresh", "-id", "one.example").Fails(t, 1, "does not fetch bundles", "bundle set")
}
