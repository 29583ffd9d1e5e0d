package flow

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// Token is what a login or a renewal brought, verified. It prints without its
// secrets, and no other package can make one.
type Token struct {
	bearer, refresh Secret

	// IssuedAt is when it was received, by the local clock.
	IssuedAt, ExpiresAt time.Time
	Subject             string
	Name                string // for people; may be empty
	Audience            []string
	Scopes              []string // granted; nil if the provider did not say
	ACR                 string   // OpenID Connect Core section 2; may be empty
	AMR                 []string
	// RefreshExpiresAt is when the refresh token ends; zero if the provider did
	// not say.
	RefreshExpiresAt time.Time
}

// Bearer is the token for Kubernetes. RefreshToken may be empty.
func (t *Token) Bearer() Secret       { return t.bearer }
func (t *Token) RefreshToken() Secret { return t.refresh }

// Format says whose token it is. The secrets could not be printed anyway.
func (t *Token) Format(f fmt.State, _ rune) {
	if t == nil {
		fmt.Fprint(f, "no token")
		return
	}
	fmt.Fprintf(f, "token of subject %q until %s (not shown)", t.Subject, t.ExpiresAt.UTC().Format(time.RFC3339))
}

// LogValue keeps the secrets out of log/slog.
func (t *Token) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }

// tokenAnswer is RFC 6749 section 5.1 with the ID token of OpenID Connect.
// It never leaves this package.
type tokenAnswer struct {
	AccessToken  Secret `json:"access_token"`
	TokenType    text   `json:"token_type"`
	ExpiresIn    number `json:"expires_in"`
	RefreshToken Secret `json:"refresh_token"`
	IDToken      Secret `json:"id_token"`
	Scope        list   `json:"scope"`
	// Keycloak's word, and other providers'.
	RefreshExpiresIn      number `json:"refresh_expires_in"`
	RefreshTokenExpiresIn number `json:"refresh_token_expires_in"`
}

// claims are those that are read here; kube-apiserver reads its own.
type claims struct {
	Issuer    text   `json:"iss"`
	Subject   text   `json:"sub"`
	Audience  list   `json:"aud"`
	Azp       text   `json:"azp"`
	Expiry    number `json:"exp"`
	IssuedAt  number `json:"iat"`
	Preferred text   `json:"preferred_username"`
	Email     text   `json:"email"`
	Name      text   `json:"name"`
	ACR       text   `json:"acr"`
	AMR       list   `json:"amr"`
}

// algorithms are those that kube-apiserver takes. None of them is symmetric:
// a client that others share has no secret to verify with.
var algorithms = []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}

// maxToken bounds a token. Servers commonly take 8 KiB to 64 KiB of headers;
// the largest ID tokens, with hundreds of groups, have some 20 KiB.
const maxToken = 64 << 10

const greatestTokenLife = 366 * 24 * time.Hour

// unknownLife is assumed of an access token that does not say how long it
// lives, and for which the provider does not say it either.
const unknownLife = 5 * time.Minute

// verify makes a Token of an answer (OpenID Connect Core section 3.1.3.7).
func (c *Client) verify(ctx context.Context, answer *tokenAnswer, received time.Time) (*Token, error) {
	token := &Token{refresh: answer.RefreshToken, IssuedAt: received.Round(0)}
	if len(answer.Scope) > 0 {
		token.Scopes = strings.Fields(Clean(strings.Join(answer.Scope, " "), 4000))
	}
	for _, t := range []Secret{answer.IDToken, answer.AccessToken, answer.RefreshToken} {
		if len(t.Reveal()) > maxToken {
			return nil, &VerificationError{Reason: fmt.Sprintf("it has more than %d bytes, which no server takes in a header", maxToken)}
		}
	}
	var cl claims
	switch {
	case !c.config.AccessToken && answer.IDToken.Empty():
		return nil, ErrNoIDToken
	case !c.config.AccessToken:
		token.bearer = answer.IDToken
		if err := c.verifyJWT(ctx, answer.IDToken.Reveal(), &cl, c.config.ClientID); err != nil {
			return nil, err
		}
		// If azp is there it must be us; with one audience, which must be us,
		// it need not be there.
		if cl.Azp != "" && string(cl.Azp) != c.config.ClientID {
			return nil, &VerificationError{Reason: fmt.Sprintf("its authorized party (azp) is %q, not %q", Clean(string(cl.Azp), 100), c.config.ClientID)}
		}
		if cl.Subject == "" {
			return nil, &VerificationError{Reason: "it names no subject (sub)"}
		}
	case answer.AccessToken.Empty():
		return nil, &VerificationError{Reason: "the provider sent no access token"}
	case answer.TokenType != "" && !strings.EqualFold(string(answer.TokenType), "Bearer"):
		return nil, &VerificationError{Reason: fmt.Sprintf("its type is %q, not Bearer", Clean(string(answer.TokenType), 40))}
	default:
		token.bearer = answer.AccessToken
		if isJWT(answer.AccessToken.Reveal()) {
			if err := c.verifyJWT(ctx, answer.AccessToken.Reveal(), &cl, ""); err != nil {
				return nil, err
			}
		}
	}
	// What is no header value cannot be a bearer token (RFC 6750 section 2.1).
	if strings.ContainsFunc(token.bearer.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, &VerificationError{Reason: "it has characters that no bearer token has"}
	}

	switch {
	case cl.Expiry > 0:
		// From the provider's clock to this machine's.
		token.ExpiresAt = time.Unix(int64(min(cl.Expiry, 1<<40)), 0).Add(-c.clock)
		// Where that is not known: by a local clock that is behind, exp is
		// further away than the token lasts. One that was issued a while ago
		// still ends at exp.
		if life := cl.Expiry - cl.IssuedAt; cl.IssuedAt > 0 && life > 0 {
			if end := token.IssuedAt.Add(life.seconds()); end.Before(token.ExpiresAt) {
				token.ExpiresAt = end
			}
		}
	case answer.ExpiresIn > 0:
		token.ExpiresAt = token.IssuedAt.Add(answer.ExpiresIn.seconds())
	default:
		c.log("the token does not say when it expires: taken to last %s", unknownLife)
		token.ExpiresAt = token.IssuedAt.Add(unknownLife)
	}
	// One that never ends, to judge by what it says, still has an end here.
	if most := token.IssuedAt.Add(greatestTokenLife); token.ExpiresAt.After(most) {
		token.ExpiresAt = most
	}
	if !token.IssuedAt.Before(token.ExpiresAt) {
		return nil, &VerificationError{Reason: fmt.Sprintf("it expired at %s, and it is %s here", token.ExpiresAt.UTC().Format(time.RFC3339), token.IssuedAt.UTC().Format(time.RFC3339))}
	}
	if life := max(answer.RefreshExpiresIn, answer.RefreshTokenExpiresIn); life > 0 && !token.refresh.Empty() {
		token.RefreshExpiresAt = token.IssuedAt.Add(life.seconds())
	}
	token.ACR = Clean(string(cl.ACR), 200)
	for _, method := range cl.AMR {
		token.AMR = append(token.AMR, Clean(method, 100))
	}
	token.Subject = Clean(string(cl.Subject), 300)
	for _, name := range []text{cl.Preferred, cl.Email, cl.Name} {
		if token.Name == "" {
			token.Name = Clean(string(name), 100)
		}
	}
	for _, aud := range cl.Audience {
		token.Audience = append(token.Audience, Clean(aud, 300))
	}
	return token, nil
}

// verifyJWT checks issuer, times, algorithm, signature and, if it is not
// empty, the audience. An access token of a provider whose keys nobody named
// is not checked for its signature: Kubernetes does that, and a client is not
// the one for whom it is meant (RFC 9068 section 4).
func (c *Client) verifyJWT(ctx context.Context, raw string, cl *claims, audience string) error {
	payload, err := parseJWT(raw)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, cl); err != nil {
		return &VerificationError{Reason: "its claims are not a JSON object"}
	}
	config := &oidc.Config{
		ClientID: audience, SkipClientIDCheck: audience == "",
		SupportedSigningAlgs: algorithms,
		Now:                  func() time.Time { return time.Now().Add(c.clock) },
	}
	if c.endpoints.JWKS == "" {
		if audience != "" {
			return &VerificationError{Reason: "the provider names no keys (jwks_uri) to verify it with"}
		}
		config.InsecureSkipSignatureCheck = true
		_, err := oidc.NewVerifier(c.config.Issuer, nil, config).Verify(ctx, raw)
		return verificationError(err)
	}
	keys, cached, err := c.keys(ctx, false)
	if err != nil {
		return err
	}
	for {
		set := &keySet{keys: keys}
		_, err := oidc.NewVerifier(c.config.Issuer, set, config).Verify(ctx, raw)
		// An unknown key id, or a key that changed under its id: the document
		// is asked for again, once.
		if !set.unfit || !cached {
			return verificationError(err)
		}
		if keys, cached, err = c.keys(ctx, true); err != nil {
			return err
		}
	}
}

func verificationError(err error) error {
	if err == nil {
		return nil
	}
	return &VerificationError{Reason: Clean(strings.TrimPrefix(err.Error(), "oidc: "), 400)}
}

// keySet verifies with keys that are already there. go-oidc's own set fetches
// them inside Verify, where a network that fails looks like a forged token.
type keySet struct {
	keys  *jose.JSONWebKeySet
	unfit bool // no key fitted
}

func (s *keySet) VerifySignature(_ context.Context, raw string) ([]byte, error) {
	jws, err := jose.ParseSignedCompact(raw, joseAlgorithms())
	if err != nil {
		return nil, err
	}
	kid := jws.Signatures[0].Header.KeyID
	for _, key := range s.keys.Keys {
		if !key.Valid() || !key.IsPublic() || key.Use == "enc" || kid != "" && key.KeyID != kid {
			continue
		}
		if payload, err := jws.Verify(&key); err == nil {
			return payload, nil
		}
	}
	s.unfit = true
	return nil, errors.New("no key of the provider fits")
}

func joseAlgorithms() []jose.SignatureAlgorithm {
	out := make([]jose.SignatureAlgorithm, len(algorithms))
	for i, a := range algorithms {
		out[i] = jose.SignatureAlgorithm(a)
	}
	return out
}

func (c *Client) prefetchKeys(ctx context.Context) (*jose.JSONWebKeySet, error) {
	if c.endpoints.JWKS == "" {
		return nil, nil
	}
	keys, _, err := c.keys(ctx, false)
	return keys, err
}

func (c *Client) keys(ctx context.Context, anew bool) (keys *jose.JSONWebKeySet, cached bool, err error) {
	cached, err = c.document(ctx, c.endpoints.JWKS, anew, func(body []byte) error {
		var doc struct {
			Keys few[json.RawMessage] `json:"keys"`
		}
		if json.Unmarshal(body, &doc) != nil || doc.Keys == nil {
			return &AnswerError{URL: shownURL(c.endpoints.JWKS), Status: http.StatusOK, Reason: "is not a key set"}
		}
		keys = &jose.JSONWebKeySet{}
		for _, raw := range doc.Keys {
			// A key of a kind that the library does not know is not ours to
			// judge (RFC 7517 section 5).
			var key jose.JSONWebKey
			if key.UnmarshalJSON(raw) == nil {
				keys.Keys = append(keys.Keys, key)
			}
		}
		return nil
	})
	return keys, cached, err
}

func isJWT(raw string) bool {
	_, err := parseJWT(raw)
	return err == nil || !errors.Is(err, errNoJWT)
}

var errNoJWT = &VerificationError{Reason: "it is not a JWT"}

// parseJWT reads a token's claims without believing them. It gives
// errNoJWT for a text of another form.
func parseJWT(raw string) (payload []byte, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errNoJWT
	}
	decoded, err := base64.RawURLEncoding.DecodeString(parts[0])
	var header struct {
		Algorithm string `json:"alg"`
	}
	if err != nil || json.Unmarshal(decoded, &header) != nil || header.Algorithm == "" {
		return nil, errNoJWT
	}
	if !slices.Contains(algorithms, header.Algorithm) {
		return nil, &VerificationError{Reason: fmt.Sprintf("it is signed with %q; only %s are taken", Clean(header.Algorithm, 20), strings.Join(algorithms, ", "))}
	}
	payload, err = base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, &VerificationError{Reason: "its claims are not base64url"}
	}
	return payload, nil
}
