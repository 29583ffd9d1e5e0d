package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

type signingKey struct {
	id      string
	private crypto.Signer
}

// session is what one approval began: all tokens that come of it.
type session struct {
	client, scope, subject string
	audience               []string // asked for with audience or resource (RFC 8707)
	authTime               time.Time
	revoked                bool
}

type refreshToken struct {
	token   string
	session *session
	used    bool // rotated away
}

type accessToken struct {
	session *session
	expires time.Time
	revoked bool
}

func (s *session) has(scope string) bool { return slices.Contains(scopes(s.scope), scope) }

// scopes takes GitHub's commas too.
func scopes(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
}

func (is *Issuer) findRefresh(token string) *refreshToken {
	for _, r := range is.refresh {
		if r.token == token {
			return r
		}
	}
	return nil
}

// addKey names each key differently, also across two runs at one address: a
// client may have kept the old ones.
func (is *Issuer) addKey() {
	is.keyCount++
	is.keys = append(is.keys, is.newKey(fmt.Sprintf("key-%d-%s", is.keyCount, rand.Text()[:6])))
}

func (is *Issuer) newKey(id string) signingKey {
	var private crypto.Signer
	var err error
	switch is.algorithm {
	case "ES256":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "RS256", "PS256":
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		err = fmt.Errorf("there is no algorithm %q", is.algorithm)
	}
	if err != nil {
		panic("issuer: " + err.Error())
	}
	return signingKey{id, private}
}

func (is *Issuer) publicKeys() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, k := range is.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: is.algorithm, Use: "sig"})
	}
	return set
}

// sign makes a JWT of the claims, or what Behaviour.Signing makes of it.
func (is *Issuer) sign(claims map[string]any, typ string) string {
	override(claims, is.behaviour.ExtraClaims)
	payload := mustJSON(claims)
	key := is.keys[len(is.keys)-1]
	switch is.behaviour.Signing {
	case "no-kid":
		key.id = ""
	case "other-key":
		if is.otherKey == nil {
			other := is.newKey("")
			is.otherKey = &other
		}
		key.private = is.otherKey.private
	case "none", "HS256":
		input := segment(mustJSON(map[string]string{"alg": is.behaviour.Signing, "typ": typ})) + "." + segment(payload)
		if is.behaviour.Signing == "none" {
			return is.jwtSentinel(input + ".")
		}
		mac := hmac.New(sha256.New, []byte(is.behaviour.ClientID))
		mac.Write([]byte(input)) // never fails
		return is.jwtSentinel(input + "." + segment(mac.Sum(nil)))
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.SignatureAlgorithm(is.algorithm), Key: jose.JSONWebKey{Key: key.private, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		panic("issuer: " + err.Error())
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic("issuer: " + err.Error())
	}
	jwt, err := signed.CompactSerialize()
	if err != nil {
		panic("issuer: " + err.Error())
	}
	return is.jwtSentinel(jwt)
}

func (is *Issuer) jwtSentinel(jwt string) string {
	is.sentinel(jwt, jwt[strings.LastIndexByte(jwt, '.')+1:])
	return jwt
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// commonClaims are those of both kinds of JWT. The jti makes any two differ.
func (is *Issuer) commonClaims(s *session, life time.Duration) map[string]any {
	issuer := is.URL()
	if is.behaviour.WrongIssuerInToken != "" {
		issuer = is.behaviour.WrongIssuerInToken
	}
	now := is.now()
	return map[string]any{"iss": issuer, "sub": s.subject, "iat": now.Unix(), "exp": now.Add(life).Unix(), "jti": rand.Text()}
}

// now is the time by the provider's clock.
func (is *Issuer) now() time.Time { return time.Now().Add(is.behaviour.ClockAhead) }

// idToken follows OpenID Connect Core sections 2 and 12.2: a renewal has the
// sub and the auth_time of the login, and an iat of its own.
func (is *Issuer) idToken(s *session) string {
	b := &is.behaviour
	claims := is.commonClaims(s, b.IDTokenLifetime)
	claims["auth_time"] = s.authTime.Add(b.ClockAhead).Unix()
	audience := []string{s.client}
	if b.Audience != nil {
		audience = b.Audience
	}
	audience = slices.Concat(audience, b.ExtraAudiences)
	setAudience(claims, audience)
	if len(audience) > 1 {
		claims["azp"] = s.client
	}
	if b.Azp != "" {
		claims["azp"] = b.Azp
	}
	if b.User.Username != "" {
		claims["preferred_username"], claims["name"] = b.User.Username, b.User.Username
	}
	if b.User.Email != "" {
		claims["email"], claims["email_verified"] = b.User.Email, true
	}
	if b.User.Groups != nil {
		claims["groups"] = b.User.Groups
	}
	return is.sign(claims, "JWT")
}

func setAudience(claims map[string]any, audience []string) {
	switch len(audience) {
	case 0:
	case 1:
		claims["aud"] = audience[0]
	default:
		claims["aud"] = audience
	}
}

// newAccessToken gives an opaque one, one as RFC 9068 has it, or WorkOS' own.
func (is *Issuer) newAccessToken(s *session) string {
	b := &is.behaviour
	var token string
	switch {
	case !b.JWTAccessToken:
		token = "access-SENTINEL-" + rand.Text()
		is.sentinel(token)
	case is.shape == WorkOS:
		claims := is.commonClaims(s, b.AccessTokenLifetime)
		claims["sid"], claims["org_id"] = "session_"+rand.Text(), "org_test"
		token = is.sign(claims, "JWT")
	default:
		claims := is.commonClaims(s, b.AccessTokenLifetime)
		claims["client_id"], claims["scope"] = s.client, s.scope
		audience := s.audience
		if len(audience) == 0 {
			audience = []string{s.client}
		}
		if b.Audience != nil {
			audience = b.Audience
		}
		setAudience(claims, slices.Concat(audience, b.ExtraAudiences))
		token = is.sign(claims, "at+jwt")
	}
	is.access[token] = &accessToken{session: s, expires: time.Now().Add(b.AccessTokenLifetime)}
	return token
}

func (is *Issuer) newRefreshToken(s *session) string {
	token := "refresh-SENTINEL-" + rand.Text()
	is.sentinel(token)
	is.refresh = append(is.refresh, &refreshToken{token: token, session: s})
	return token
}

// tokens is the answer of the token endpoint (RFC 6749 section 5.1), without a
// refresh token.
func (is *Issuer) tokens(s *session, scope string) map[string]any {
	b := &is.behaviour
	fields := map[string]any{"access_token": is.newAccessToken(s)}
	if !b.NoIDToken && s.has("openid") {
		fields["id_token"] = is.idToken(s)
	}
	if is.shape == WorkOS {
		fields["user"] = map[string]any{"object": "user", "id": s.subject, "email": b.User.Email, "email_verified": true, "first_name": b.User.Username, "last_name": nil}
		fields["organization_id"] = "org_test"
		fields["authentication_method"] = "Password"
		return fields
	}
	fields["token_type"] = "Bearer"
	fields["expires_in"] = int(b.AccessTokenLifetime.Seconds())
	fields["scope"] = scope
	switch is.shape {
	case Dex:
		fields["token_type"] = "bearer"
		delete(fields, "scope")
	case GitHub:
		fields["token_type"] = "bearer"
		fields["scope"] = strings.Join(scopes(scope), ",")
	}
	return fields
}

// overrideTokens comes last, when the answer is complete.
func (is *Issuer) overrideTokens(fields map[string]any) {
	b := &is.behaviour
	if b.ScopesGranted != "" {
		fields["scope"] = b.ScopesGranted
	}
	if b.ExpiresIn != nil {
		override(fields, map[string]any{"expires_in": b.ExpiresIn})
	}
	override(fields, b.TokenFields)
	for _, name := range []string{"access_token", "id_token", "refresh_token"} {
		if s, ok := fields[name].(string); ok {
			is.sentinel(s)
		}
	}
}

func override(fields, with map[string]any) {
	for name, value := range with {
		if _, missing := value.(Missing); missing || value == nil {
			delete(fields, name)
		} else {
			fields[name] = value
		}
	}
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("issuer: " + err.Error()) // a test put something into a field that JSON has no word for
	}
	return b
}
