package flow_test

import (
	"slices"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

func TestProvider(t *testing.T) {
	is := issuer.New(issuer.Options{Path: "/"})
	is.Set(func(b *issuer.Behaviour) {
		b.PKCE = "S256"
		b.DiscoveryFields = map[string]any{
			"id_token_signing_alg_values_supported": []string{"HS256", "RS256", "no\x1bne", "ES512"},
			"scopes_supported":                      issuer.Missing{},
		}
	})
	c, err := flow.New(t.Context(), flow.Config{Issuer: is.URL(), ClientID: "kubectl", HTTP: is.Client(), Trust: "some"})
	if err != nil {
		t.Fatal(err)
	}
	p := c.Provider()
	if p == nil || !slices.Contains(p.GrantTypes, flow.DeviceGrant) || p.Scopes != nil || !slices.Equal(p.ChallengeMethods, []string{"S256"}) {
		t.Errorf("%+v", p)
	}
	if want := []string{"HS256", "RS256", "none", "ES512"}; !slices.Equal(p.Algorithms, want) {
		t.Errorf("algorithms %q", p.Algorithms)
	}
	if want := []string{"RS256", "ES512"}; !slices.Equal(p.Accepted(), want) {
		t.Errorf("accepted %q", p.Accepted())
	}
	ids, err := c.KeyIDs(t.Context())
	if err != nil || len(ids) != 1 || ids[0] == "" {
		t.Errorf("keys %q, %v", ids, err)
	}

	given := flow.Endpoints{DeviceAuthorization: is.URL() + "device", Token: is.URL() + "token", JWKS: is.URL() + "jwks"}
	c, err = flow.New(t.Context(), flow.Config{Issuer: is.URL(), ClientID: "kubectl", HTTP: is.Client(), Endpoints: given})
	if err != nil || c.Provider() != nil {
		t.Errorf("a document without discovery: %v, %v", c.Provider(), err)
	}
}
