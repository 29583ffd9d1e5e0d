// Package issuer is a scriptable OpenID provider for tests and for the demo:
// real HTTP, real signatures, and every misbehaviour that has been seen at a
// real one. Nothing of it is in the product's binary.
//
//	is, err := issuer.Start(issuer.Options{TLS: true})
//	defer is.Close()
//	is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 2 })
//	is.Fault("poll", 1, issuer.Error(http.StatusServiceUnavailable, "temporarily_unavailable", ""))
//	… run the program with --oidc-issuer-url=is.URL() …
//	for _, secret := range is.Sentinels() { … must not be in any output … }
//
// In a testing/synctest bubble, where sockets do not work, use New and Client.
package issuer

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Shapes of Options: "" follows the specifications, the others have the paths,
// fields and HTTP statuses of a known provider. Each sets its Behaviour, which
// can be changed afterwards.
const (
	Standard = ""
	WorkOS   = "workos" // user management: no discovery, no ID token, a JWT as access token
	Google   = "google" // GoogleSecret is needed at the token endpoint
	GitHub   = "github" // not OpenID: errors with HTTP 200, forms unless JSON is asked for
	Dex      = "dex"
)

// GoogleSecret is the client secret that the shape Google begins with.
const GoogleSecret = "client-secret-SENTINEL-google"

// Options are what cannot change while an issuer runs.
type Options struct {
	// Base is scheme and host of every URL that the issuer gives out. Default:
	// https://issuer.test for New, where it listens for Start.
	Base string
	// Path is what comes after Base in the issuer's name, to the letter:
	// "/realms/test", or "/" for a name that ends in a slash.
	Path  string
	Shape string
	// Algorithm signs: ES256 (the default, quick to start), ES384, RS256, PS256.
	Algorithm string

	// The rest is for Start.

	Addr  string   // default 127.0.0.1:0
	TLS   bool     // https, with a certificate of a fresh CA for 127.0.0.1, ::1 and localhost
	Hosts []string // more names and addresses for that certificate
	// TLSConfig, if set, is used as it is; CAPEM is then empty.
	TLSConfig *tls.Config
}

// User is who approves.
type User struct {
	Subject, Username, Email string
	Groups                   []string
}

// Missing as a value takes a field out of an answer or a claim out of a token;
// in maps, nil does the same.
type Missing struct{}

// Behaviour is everything that a test may change while the issuer runs. Where
// nothing else is said, the zero value is the decent one.
type Behaviour struct {
	// User approves. A session keeps the subject that approved it, the other
	// claims are those of the User at the time of each token.
	User User

	ClientID     string // default kubectl
	ClientSecret string // empty: a public client, which must not send a secret
	// AuthMethods limits what a client with a secret may use, and is listed in
	// discovery: default client_secret_basic and client_secret_post.
	AuthMethods []string

	IDTokenLifetime, CodeLifetime, AccessTokenLifetime time.Duration // default 10 min each

	// ClockAhead is by how much the provider's clock is ahead of this
	// machine's: in its tokens, and in the Date of each answer.
	ClockAhead time.Duration

	Interval          int   // seconds; default 5; 0: left out of the answer, and 5 is meant
	ApproveAfterPolls int   // n > 0: the nth poll finds it approved
	DenyAfterPolls    int   // n > 0: the nth poll finds it denied
	SlowDownOnPolls   []int // these polls (the first is 1) are told to slow down
	EnforceInterval   bool  // slow_down for a poll that comes too soon; the interval then grows by 5 s

	RotateRefresh       bool // default true
	RevokeFamilyOnReuse bool // default true: a refresh token that was rotated away ends the session
	OfflineScopeNeeded  bool // a refresh token only for scope offline_access
	NoRefreshToken      bool
	NoIDToken           bool
	NoIDTokenAtRefresh  bool
	// RefreshDelay passes between the work and the answer: a client that hangs
	// up meanwhile has lost its rotated token.
	RefreshDelay time.Duration
	// InvalidGrantCode is the error for a bad refresh token; default invalid_grant.
	InvalidGrantCode string

	NoRevocation  bool   // not in discovery, and 404
	NoDeviceGrant bool   // not in discovery, and 404
	PKCE          string // "", "S256": in discovery, "required". A challenge that was sent is always verified.

	LegacyVerificationURL bool // verification_url rather than verification_uri
	NoComplete            bool // no verification_uri_complete

	// ErrorStatus is the HTTP status by OAuth error code, "*" for any other;
	// default 400, and 401 for invalid_client.
	ErrorStatus map[string]int

	JWTAccessToken  bool           // rather than an opaque one
	Audience        []string       // of tokens; nil: the client id; empty: no aud
	ExtraAudiences  []string       // come after Audience
	Azp             string         // default: the client id where there are several audiences
	ExtraClaims     map[string]any // override those of ID tokens and JWT access tokens
	ExpiresIn       any            // overrides expires_in of token answers
	ScopesGranted   string         // overrides scope of token answers
	DeviceFields    map[string]any // override the device authorization answer, and count: codes, interval
	TokenFields     map[string]any // override token answers
	DiscoveryFields map[string]any // override the discovery document

	// Signing: "" as it should be; "none"; "HS256", with the client id as key;
	// "other-key", which is not published, under the id of the one that is;
	// "no-kid", good but without a key id.
	Signing                string
	WrongIssuerInDiscovery string
	WrongIssuerInToken     string
}

// Request is one that the issuer has seen.
type Request struct {
	Method, Path string
	Form         url.Values // body and query
	Header       http.Header
	Time         time.Time
}

// Issuer is the provider. All methods are for concurrent use.
type Issuer struct {
	base, prefix, path, shape, algorithm string

	server *http.Server
	caPEM  []byte

	mu        sync.Mutex
	behaviour Behaviour
	keys      []signingKey // the last one signs
	otherKey  *signingKey
	keyCount  int
	codes     []*code
	refresh   []*refreshToken
	access    map[string]*accessToken
	requests  map[string][]Request
	faults    map[string][]*fault
	sentinels []string
	known     map[string]bool
}

// New gives an issuer that does not listen: use Handler or Client.
func New(o Options) *Issuer {
	if o.Base == "" {
		o.Base = "https://issuer.test"
	}
	if o.Algorithm == "" {
		o.Algorithm = "ES256"
	}
	is := &Issuer{
		base: strings.TrimSuffix(o.Base, "/"), path: o.Path, prefix: strings.TrimSuffix(o.Path, "/"),
		shape: o.Shape, algorithm: o.Algorithm,
		access: map[string]*accessToken{}, requests: map[string][]Request{}, faults: map[string][]*fault{}, known: map[string]bool{},
	}
	is.behaviour = Behaviour{
		User:            User{Subject: "subject-1", Username: "ada", Email: "ada@example.com", Groups: []string{"developers", "on-call"}},
		ClientID:        "kubectl",
		IDTokenLifetime: 10 * time.Minute, CodeLifetime: 10 * time.Minute, AccessTokenLifetime: 10 * time.Minute,
		Interval: 5, RotateRefresh: true, RevokeFamilyOnReuse: true,
	}
	b := &is.behaviour
	switch o.Shape {
	case Standard:
	case WorkOS:
		b.CodeLifetime, b.NoIDToken, b.JWTAccessToken, b.NoRevocation = 5*time.Minute, true, true, true
	case Google:
		b.ClientSecret, b.CodeLifetime, b.LegacyVerificationURL, b.NoComplete = GoogleSecret, 30*time.Minute, true, true
		b.RotateRefresh, b.RevokeFamilyOnReuse, b.User.Groups = false, false, nil
		b.ErrorStatus = map[string]int{"authorization_pending": http.StatusPreconditionRequired, "slow_down": http.StatusForbidden, "access_denied": http.StatusForbidden}
	case GitHub:
		b.CodeLifetime, b.NoIDToken, b.NoRefreshToken, b.NoRevocation, b.NoComplete = 15*time.Minute, true, true, true, true
		b.ExpiresIn, b.InvalidGrantCode, b.EnforceInterval = Missing{}, "bad_refresh_token", true
		b.ErrorStatus = map[string]int{"*": http.StatusOK}
	case Dex:
		b.CodeLifetime, b.NoRevocation, b.PKCE, b.EnforceInterval = 5*time.Minute, true, "S256", true
		b.OfflineScopeNeeded, b.RevokeFamilyOnReuse, b.InvalidGrantCode = true, false, "invalid_request"
		b.ErrorStatus = map[string]int{"authorization_pending": http.StatusUnauthorized}
	default:
		panic(fmt.Sprintf("issuer: there is no shape %q", o.Shape))
	}
	is.sentinel(b.ClientSecret)
	is.addKey()
	return is
}

// URL is the issuer's name.
func (is *Issuer) URL() string { return is.base + is.path }

// Set changes the behaviour. f must not call the issuer.
func (is *Issuer) Set(f func(*Behaviour)) {
	is.mu.Lock()
	defer is.mu.Unlock()
	f(&is.behaviour)
	if s := is.behaviour.Signing; !slices.Contains([]string{"", "none", "HS256", "other-key", "no-kid"}, s) {
		panic(fmt.Sprintf("issuer: there is no way of signing called %q", s))
	}
	is.sentinel(is.behaviour.ClientSecret)
}

// Approve is what the person does at the verification page. The code counts
// without case and dashes. A code that cannot be approved any more is an error.
func (is *Issuer) Approve(userCode string) error {
	return is.decide(userCode, func(c *code) { is.approve(c) })
}

// Deny is what the person does if they did not start the login.
func (is *Issuer) Deny(userCode string) error {
	return is.decide(userCode, func(c *code) { c.state = denied })
}

// Expire ends the life of a code that is pending.
func (is *Issuer) Expire(userCode string) error {
	return is.decide(userCode, func(c *code) { c.expires = time.Now() })
}

func (is *Issuer) decide(userCode string, f func(*code)) error {
	is.mu.Lock()
	defer is.mu.Unlock()
	c := is.pending(userCode)
	if c == nil {
		return fmt.Errorf("issuer: no login is pending for code %q", userCode)
	}
	f(c)
	return nil
}

// PendingCodes are the user codes that wait for a person, the newest last.
func (is *Issuer) PendingCodes() []string {
	is.mu.Lock()
	defer is.mu.Unlock()
	var codes []string
	for _, c := range is.codes {
		if c.state == pending && time.Now().Before(c.expires) {
			codes = append(codes, c.user)
		}
	}
	return codes
}

// RotateKey signs with a new key from now on. The others are published along
// with it only if keepOld is set.
func (is *Issuer) RotateKey(keepOld bool) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if !keepOld {
		is.keys = nil
	}
	is.addKey()
}

// Count tells how many requests an endpoint has seen, those answered by a
// Fault among them. The endpoints are discovery, jwks, device, token, revoke,
// userinfo, page (of the person) and other (any path that does not exist);
// poll and refresh are the requests to token with these grants.
func (is *Issuer) Count(endpoint string) int { return len(is.Requests(endpoint)) }

// Requests are those that an endpoint has seen, in order. See Count.
func (is *Issuer) Requests(endpoint string) []Request {
	is.mu.Lock()
	defer is.mu.Unlock()
	return slices.Clone(is.requests[endpoint])
}

// Sentinels are all secrets that were ever issued, configured or received:
// device codes, tokens (of a JWT also the signature alone), client secrets,
// credentials in Authorization headers, PKCE verifiers. What the issuer makes
// up holds the word SENTINEL.
func (is *Issuer) Sentinels() []string {
	is.mu.Lock()
	defer is.mu.Unlock()
	return slices.Clone(is.sentinels)
}

// Revoked tells whether a refresh token's session, or an access token, was
// ended: by revocation, or by the reuse of a refresh token.
func (is *Issuer) Revoked(token string) bool {
	is.mu.Lock()
	defer is.mu.Unlock()
	if a := is.access[token]; a != nil {
		return a.revoked || a.session.revoked
	}
	r := is.findRefresh(token)
	return r != nil && r.session.revoked
}

// RefreshTokens are those that would be accepted now, the newest last.
func (is *Issuer) RefreshTokens() []string {
	is.mu.Lock()
	defer is.mu.Unlock()
	var live []string
	for _, r := range is.refresh {
		if !r.used && !r.session.revoked {
			live = append(live, r.token)
		}
	}
	return live
}

// sentinel remembers secrets. Like everything below that changes an Issuer it
// wants the mutex held.
func (is *Issuer) sentinel(secrets ...string) {
	for _, s := range secrets {
		if s != "" && !is.known[s] {
			is.known[s] = true
			is.sentinels = append(is.sentinels, s)
		}
	}
}
