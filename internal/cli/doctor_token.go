package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// checkToken reads the cached token. It was verified when it came, and is not
// again.
func (d *doctor) checkToken(context.Context) result {
	e, err := d.store.Load(d.id)
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return blocked("nobody has logged in yet: %s", d.commandLine("login"))
	case err != nil:
		return blocked("the session cannot be read")
	}
	d.cached = e
	d.decode(e.Token.Reveal())
	until := clock(e.TokenExpiresAt)
	renewable := !e.RefreshToken.Empty() && !d.noRefreshToken &&
		(e.RefreshExpiresAt.IsZero() || time.Now().Before(e.RefreshExpiresAt)) &&
		(d.maxSessionAge == 0 || time.Since(e.ApprovedAt) <= d.maxSessionAge)
	switch {
	case !valid(e) && !renewable:
		return found("token-dead", d.commandLine("login"), "the token expired at %s, and cannot be renewed", until)
	case !valid(e):
		return found("token-expired", "the next use renews it: kubectl auth whoami", "the token expired at %s", until)
	case d.claims == nil:
		return found("token-opaque", "without --oidc-use-access-token, or have the provider issue JWTs (many do for an audience: --oidc-auth-request-extra-params=audience=…)", "the token is not a JWT: kube-apiserver takes it only through a webhook")
	case renewable:
		return fine("of %s, good until %s, renewable (verified when it came, not again)", whoIs(e), until)
	}
	return fine("of %s, good until %s, not renewable (verified when it came, not again)", whoIs(e), until)
}

// decode reads a JWT without believing it; claims stays nil for anything else.
func (d *doctor) decode(raw string) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	var claims map[string]any
	for i, into := range []any{&header, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, into) != nil {
			return
		}
	}
	d.keyID, d.claims = header.KeyID, claims
}

// text is a claim that is a string; "" for any other.
func (d *doctor) text(claim string) string {
	s, _ := d.claims[claim].(string)
	return s
}

// texts are the strings of a claim that is one, or a list of them.
func texts(claim any) (all []string) {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case []any:
		for _, v := range c {
			if s, ok := v.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// few shows the first of a list.
func few(list []string) string {
	const most = 10
	shown := list[:min(len(list), most)]
	s := strings.Join(shown, ", ")
	if more := len(list) - len(shown); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	if s == "" {
		return "(none)"
	}
	return s
}

const noClaims = "the token is not a JWT"

func (d *doctor) checkTokenIssuer(context.Context) result {
	if d.claims == nil {
		return skipped(noClaims)
	}
	if iss := d.text("iss"); iss != d.issuer {
		return found("token-issuer", "if that is the provider you mean: --oidc-issuer-url="+shellQuote(flow.Clean(iss, 300)), "the token's iss is %q, not %q", iss, d.issuer)
	}
	return fine("%s", d.issuer)
}

func (d *doctor) checkTokenAudience(context.Context) result {
	aud := texts(d.claims["aud"])
	switch {
	case d.claims == nil:
		return skipped(noClaims)
	case !d.useAccessToken && !slices.Contains(aud, d.clientID):
		return found("token-audience", d.commandLine("login"), "the token's aud is %s, without the client %s", few(aud), d.clientID)
	case len(aud) == 0:
		return found("token-no-audience", "have the provider put one in: --oidc-auth-request-extra-params=audience=… or resource=…", "the access token has no aud: kube-apiserver wants one that it is configured for")
	}
	return fine("%s", few(aud))
}

// keyGone says whether the key that signed the token is published no more.
func (d *doctor) keyGone() bool {
	return d.keyID != "" && len(d.keyIDs) > 0 && !slices.Contains(d.keyIDs, flow.Clean(d.keyID, 100))
}

func (d *doctor) checkTokenKey(context.Context) result {
	switch {
	case d.claims == nil:
		return skipped(noClaims)
	case len(d.keyIDs) == 0 || d.keyID == "":
		return skipped("the key has no name to look for")
	case d.keyGone():
		return found("token-key", d.commandLine("login"), "the key %q that signed the token is not published any more: the API server will refuse it", d.keyID)
	}
	return fine("%q is among the provider's", d.keyID)
}

func (d *doctor) checkTokenUser(context.Context) result {
	if d.claims == nil {
		return skipped(noClaims)
	}
	var names []string
	for _, claim := range []string{"sub", "preferred_username", "email"} {
		if s := d.text(claim); s != "" {
			names = append(names, fmt.Sprintf("%s %q", claim, flow.Clean(s, 100)))
		}
	}
	if verified, ok := d.claims["email_verified"].(bool); ok && !verified && d.text("email") != "" {
		return found("email-unverified", "have the provider verify the address, or give kube-apiserver another --oidc-username-claim", "%s; email_verified is false, and kube-apiserver then takes no email for a user's name", strings.Join(names, ", "))
	}
	return fine("%s", few(names))
}

// manyGroups and largeToken are what servers and proxies commonly have trouble
// with: a header of 8 KiB.
const (
	manyGroups = 200
	largeToken = 8 << 10
)

func (d *doctor) checkTokenGroups(context.Context) result {
	groups := texts(d.claims["groups"])
	sources, _ := d.claims["_claim_names"].(map[string]any) // OpenID Connect Core section 5.6.2
	_, elsewhere := sources["groups"]
	switch {
	case d.claims == nil:
		return skipped(noClaims)
	case elsewhere || d.claims["hasgroups"] == true:
		return found("groups-overage", "have the provider send only the groups that are assigned to the application", "the user is in so many groups that the token holds none of them: kube-apiserver sees no groups")
	case len(groups) == 0 && slices.Contains(d.key().Scopes, "groups"):
		return found("groups-missing", "have the provider put the groups into a claim groups of this client's tokens", "the scope groups is asked for, but the token has no claim groups")
	case len(groups) > manyGroups:
		return found("groups-many", "have the provider send only the groups that the cluster knows", "the token has %d groups (%s)", len(groups), few(groups))
	case len(groups) == 0:
		return fine("no claim groups")
	}
	return fine("%d: %s", len(groups), few(groups))
}

func (d *doctor) checkTokenSize(context.Context) result {
	n := len(d.cached.Token.Reveal())
	if n > largeToken {
		return found("token-large", "have the provider leave claims out, groups above all", "the token has %d bytes: many servers and proxies take headers of %d at most", n, largeToken)
	}
	return fine("%d bytes", n)
}
