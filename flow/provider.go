package flow

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// Provider is what a discovery document offers, beside the endpoints. Its texts
// have been through Clean; a list that is nil was not there.
type Provider struct {
	GrantTypes       []string // grant_types_supported
	Scopes           []string // scopes_supported
	Algorithms       []string // id_token_signing_alg_values_supported
	ChallengeMethods []string // code_challenge_methods_supported
}

// DeviceGrant is the device grant's name among GrantTypes (RFC 8628 section 4).
const DeviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// Provider reads the document that New found the endpoints in; nil if there
// was none, for they were given.
func (c *Client) Provider() *Provider {
	kept, ok := c.documents[c.documentName(discoveryURL(c.config.Issuer))]
	if !ok {
		return nil
	}
	var doc struct {
		GrantTypes       list `json:"grant_types_supported"`
		Scopes           list `json:"scopes_supported"`
		Algorithms       list `json:"id_token_signing_alg_values_supported"`
		ChallengeMethods list `json:"code_challenge_methods_supported"`
	}
	_ = json.Unmarshal(kept.body, &doc) // New has read it already
	return &Provider{
		GrantTypes: cleanList(doc.GrantTypes), Scopes: cleanList(doc.Scopes),
		Algorithms: cleanList(doc.Algorithms), ChallengeMethods: cleanList(doc.ChallengeMethods),
	}
}

// Accepted are the algorithms of the provider that kube-apiserver takes.
func (p *Provider) Accepted() []string {
	var both []string
	for _, a := range p.Algorithms {
		if slices.Contains(algorithms, a) {
			both = append(both, a)
		}
	}
	return both
}

// KeyIDs asks for the provider's keys, and gives the ids of those that can
// verify a token; an id may be empty. Without a jwks_uri there are none.
func (c *Client) KeyIDs(ctx context.Context) ([]string, error) {
	var ids []string
	err := retry(ctx, func() error {
		set, err := c.prefetchKeys(ctx)
		if err != nil || set == nil {
			return err
		}
		ids = nil
		for _, key := range set.Keys {
			if key.Valid() && key.IsPublic() && key.Use != "enc" {
				ids = append(ids, Clean(key.KeyID, 100))
			}
		}
		return nil
	})
	return ids, err
}

func discoveryURL(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

func cleanList(l list) []string {
	for i := range l {
		l[i] = Clean(l[i], 200)
	}
	return l
}
