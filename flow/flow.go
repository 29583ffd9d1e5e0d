// Package flow is the OAuth of a login at a device that has no browser: the
// device authorization grant (RFC 8628), the verification of what it brings,
// its renewal (RFC 6749 section 6) and its revocation (RFC 7009).
//
//	client, err := flow.New(ctx, flow.Config{Issuer: "https://idp.example.com", ClientID: "kubectl"})
//	auth, err := client.Authorize(ctx)
//	fmt.Fprintf(os.Stderr, "open %s and enter %s\n", auth.VerificationURI, auth.UserCode)
//	token, err := client.Poll(ctx, auth, nil)
//	use(token.Bearer().Reveal())
//	…
//	token, err = client.Refresh(ctx, flow.Previous{RefreshToken: token.RefreshToken(), Subject: token.Subject})
//	err = client.Revoke(ctx, token.RefreshToken(), flow.HintRefreshToken)
//
// A *Token comes out of Poll and Refresh alone, and only after it was
// verified. Every text in an error or a struct that came from the provider has
// been through Clean and holds no secret.
package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
)

// Secret holds a token, a code or a client secret, and cannot be printed,
// logged, marshalled or compared by accident; see its methods.
type Secret = secret.String

// NewSecret makes a Secret of a text.
func NewSecret(s string) Secret { return secret.New(s) }

// Values of Config.OfflineAccess and Config.PKCE.
const (
	Auto   = "auto"
	Always = "always" // OfflineAccess
	Never  = "never"  // OfflineAccess
	No     = "no"     // PKCE
	S256   = "S256"   // PKCE
)

// Config is what a client knows before it talks to anybody.
type Config struct {
	// Issuer must be https, or http on a loopback address (see CheckURL), and
	// must be, to the letter, what the provider calls itself.
	Issuer   string
	ClientID string
	// ClientSecret gives the secret of a client that has one; nil for a public
	// client. It is asked when a request needs it.
	ClientSecret func() (Secret, error)

	Scopes        []string   // asked for beside openid
	OfflineAccess string     // Auto (the default): offline_access where discovery lists it; Always; Never
	ExtraParams   url.Values // sent with the device authorization request
	PKCE          string     // Auto (the default): S256 where discovery lists it; No; S256
	AccessToken   bool       // the access token is the Bearer, not the ID token

	// Endpoints that are set override discovery. With the first two set (and
	// JWKS, where ID tokens are to be verified) there is no discovery.
	Endpoints Endpoints

	// HTTP makes the requests. Its timeout is the longest that one request
	// may take; redirects are this package's own business.
	HTTP      *http.Client
	UserAgent string // empty: Go's own

	// Documents keeps discovery and keys for up to an hour; nil keeps nothing.
	// Trust goes into the names under which they are kept: two configurations
	// that trust different certificates must not share documents.
	Documents Documents
	Trust     string

	// Log gets a line for each request; nil for none. No line holds a secret.
	Log func(format string, args ...any)
}

// Endpoints of a provider.
type Endpoints struct {
	DeviceAuthorization string
	Token               string
	Revocation          string // empty: the provider cannot revoke
	JWKS                string
}

// Documents keeps public documents between two runs.
type Documents interface {
	LoadDocument(name string) (body []byte, fetched time.Time) // nil: not there
	SaveDocument(name string, body []byte, fetched time.Time) error
}

// documentLife is how long a kept document is used without asking again.
const documentLife = time.Hour

// Client talks to one provider for one client id. It holds a secret at most as
// a function, and can be printed. It is not for concurrent use.
type Client struct {
	config       Config
	http         *http.Client
	endpoints    Endpoints
	offline      bool
	pkce         bool
	secretInBody bool // client_secret_post rather than client_secret_basic
	documents    map[string]document
	clock        time.Duration // see ClockDifference
}

// metadata is what is read of a discovery document (OpenID Connect Discovery
// section 3, RFC 8414 section 2, RFC 8628 section 4).
type metadata struct {
	Issuer              string      `json:"issuer"`
	DeviceAuthorization string      `json:"device_authorization_endpoint"`
	Token               string      `json:"token_endpoint"`
	Revocation          string      `json:"revocation_endpoint"`
	JWKS                string      `json:"jwks_uri"`
	Scopes              few[string] `json:"scopes_supported"`
	PKCE                few[string] `json:"code_challenge_methods_supported"`
	TokenAuth           few[string] `json:"token_endpoint_auth_methods_supported"`
}

// New finds the provider's endpoints: from the configuration, from a kept
// document, or by asking.
func New(ctx context.Context, config Config) (*Client, error) {
	c := &Client{config: config, endpoints: config.Endpoints, documents: map[string]document{}}
	c.http = limitedClient(config.HTTP)
	given := config.Endpoints
	for _, u := range []string{config.Issuer, given.DeviceAuthorization, given.Token, given.Revocation, given.JWKS} {
		if err := CheckURL(u); u != "" && err != nil {
			return nil, err
		}
	}
	c.offline = config.OfflineAccess == Always
	c.pkce = config.PKCE == S256
	if given.DeviceAuthorization != "" && given.Token != "" && (given.JWKS != "" || config.AccessToken) {
		return c, nil
	}

	at := discoveryURL(config.Issuer)
	var doc metadata
	read := func(body []byte) error {
		doc = metadata{}
		if err := json.Unmarshal(body, &doc); err != nil {
			return &AnswerError{URL: at, Status: http.StatusOK, Reason: "is not a discovery document"}
		}
		// OpenID Connect Discovery section 4.3: to the letter. Otherwise one
		// provider could speak for another.
		if doc.Issuer != config.Issuer {
			return &IssuerError{Want: config.Issuer, Got: Clean(doc.Issuer, 300)}
		}
		for _, endpoint := range []string{doc.DeviceAuthorization, doc.Token, doc.Revocation, doc.JWKS} {
			if endpoint == "" {
				continue
			}
			if err := CheckURL(endpoint); err != nil {
				return &AnswerError{URL: at, Status: http.StatusOK, Reason: fmt.Sprintf("names an endpoint that is not safe: %v", err)}
			}
		}
		return nil
	}
	load := func(anew bool) (cached bool, err error) {
		err = retry(ctx, func() error { cached, err = c.document(ctx, at, anew, read); return err })
		return cached, err
	}
	cached, err := load(false)
	if err == nil && cached && (doc.DeviceAuthorization == "" || doc.Token == "" || doc.JWKS == "") {
		// Before anybody is told to switch something on: they may just have.
		_, err = load(true)
	}
	if err != nil {
		var answer *AnswerError
		if errors.As(err, &answer) && answer.Status == http.StatusNotFound {
			return nil, &NoDiscoveryError{Issuer: config.Issuer, URL: at}
		}
		return nil, err
	}
	for _, e := range []struct{ endpoint, found *string }{
		{&c.endpoints.DeviceAuthorization, &doc.DeviceAuthorization},
		{&c.endpoints.Token, &doc.Token},
		{&c.endpoints.Revocation, &doc.Revocation},
		{&c.endpoints.JWKS, &doc.JWKS},
	} {
		if *e.endpoint == "" {
			*e.endpoint = *e.found
		}
	}
	if c.endpoints.Token == "" {
		return nil, &AnswerError{URL: at, Status: http.StatusOK, Reason: "names no token endpoint"}
	}
	if config.OfflineAccess == "" || config.OfflineAccess == Auto {
		c.offline = slices.Contains(doc.Scopes, "offline_access")
	}
	if config.PKCE == "" || config.PKCE == Auto {
		c.pkce = slices.Contains(doc.PKCE, S256)
	}
	// Without a word from the provider the default is client_secret_basic.
	c.secretInBody = slices.Contains(doc.TokenAuth, "client_secret_post") && !slices.Contains(doc.TokenAuth, "client_secret_basic")
	return c, nil
}

// ClockDifference is by how much the provider's clock is ahead of this
// machine's, as far as its answers have told. Less than a minute counts as none.
// A token's times are judged by the provider's clock, and told by this machine's.
func (c *Client) ClockDifference() time.Duration { return c.clock }

// Endpoints are those that the client uses.
func (c *Client) Endpoints() Endpoints { return c.endpoints }

// Scopes are those that Authorize asks for: openid, the configured ones, and
// offline_access where it applies.
func (c *Client) Scopes() []string {
	scopes := append([]string{"openid"}, c.config.Scopes...)
	if c.offline {
		scopes = append(scopes, "offline_access")
	}
	var set []string
	for _, s := range scopes {
		if !slices.Contains(set, s) && (s != "offline_access" || c.config.OfflineAccess != Never) {
			set = append(set, s)
		}
	}
	return set
}

// Authorization is a login that waits for a person. It prints without its
// device code.
type Authorization struct {
	VerificationURI string
	// VerificationURIComplete holds the code already; empty if the provider
	// sent none. The code must be shown all the same (RFC 8628 section 3.3.1).
	VerificationURIComplete string
	UserCode                string
	ExpiresAt               time.Time

	// end is ExpiresAt by the monotonic clock, which a wall clock that is set
	// back does not move.
	end        time.Time
	interval   time.Duration
	deviceCode Secret
	verifier   Secret
}

// left is how long the code still lasts. The wall clock counts too: the
// monotonic one stands still while a machine sleeps, and the code does not.
func (a *Authorization) left() time.Duration {
	return min(time.Until(a.end), a.ExpiresAt.Sub(time.Now().Round(0)))
}

// Format says which login it is. Its secrets could not be printed anyway.
func (a *Authorization) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "authorization of %s until %s", a.UserCode, a.ExpiresAt.Format(time.RFC3339))
}

// Bounds for what a provider says about a code (RFC 8628 section 3.2).
const (
	defaultInterval = 5 * time.Second
	leastInterval   = 50 * time.Millisecond // for one that sends next to nothing
	defaultLife     = 5 * time.Minute       // for a provider that leaves out the required expires_in
	greatestLife    = 24 * time.Hour
)

// Authorize asks for a device code and a user code (RFC 8628 section 3.1).
func (c *Client) Authorize(ctx context.Context) (*Authorization, error) {
	if c.endpoints.DeviceAuthorization == "" {
		return nil, &NoDeviceGrantError{Issuer: c.config.Issuer}
	}
	form := url.Values{"client_id": {c.config.ClientID}, "scope": {strings.Join(c.Scopes(), " ")}}
	for name, values := range c.config.ExtraParams {
		form[name] = values
	}
	a := &Authorization{}
	if c.pkce {
		a.verifier = secret.New(oauth2.GenerateVerifier())
		form.Set("code_challenge", oauth2.S256ChallengeFromVerifier(a.verifier.Reveal()))
		form.Set("code_challenge_method", S256)
	}
	var answer struct {
		DeviceCode      Secret `json:"device_code"`
		UserCode        string `json:"user_code"`
		URI             string `json:"verification_uri"`
		URL             string `json:"verification_url"` // drafts of RFC 8628, and Google to this day
		URIComplete     string `json:"verification_uri_complete"`
		URLComplete     string `json:"verification_url_complete"`
		ExpiresIn       number `json:"expires_in"`
		IntervalSeconds number `json:"interval"`
	}
	var asked time.Time
	err := retry(ctx, func() error {
		asked = time.Now()
		return c.post(ctx, c.endpoints.DeviceAuthorization, form, &answer)
	})
	if err != nil {
		return nil, err
	}
	if answer.URI == "" {
		answer.URI = answer.URL
	}
	if answer.URIComplete == "" {
		answer.URIComplete = answer.URLComplete
	}
	bad := func(reason string) error {
		return &AnswerError{URL: c.endpoints.DeviceAuthorization, Status: http.StatusOK, Reason: reason}
	}
	a.deviceCode = answer.DeviceCode
	a.UserCode = answer.UserCode
	a.VerificationURI = answer.URI
	switch {
	case a.deviceCode.Empty():
		return nil, bad("holds no device_code")
	case a.UserCode == "":
		return nil, bad("holds no user_code")
	case a.UserCode != Clean(a.UserCode, 100):
		// Shown without what cannot be shown, it would not be the code.
		return nil, bad("has a user_code that cannot be shown")
	case a.VerificationURI == "":
		return nil, bad("holds no verification_uri")
	}
	if err := CheckURL(a.VerificationURI); err != nil {
		return nil, bad(fmt.Sprintf("has a verification_uri that is not safe: %v", err))
	}
	// The optional link is a comfort: one that is not safe is left out.
	if CheckURL(answer.URIComplete) == nil {
		a.VerificationURIComplete = answer.URIComplete
	}
	life := defaultLife
	if answer.ExpiresIn > 0 {
		life = min(answer.ExpiresIn.seconds(), greatestLife)
	}
	a.end = asked.Add(life)
	a.ExpiresAt = a.end.Round(0)
	a.interval = defaultInterval
	if answer.IntervalSeconds > 0 {
		a.interval = min(max(answer.IntervalSeconds.seconds(), leastInterval), greatestLife)
	}
	return a, nil
}

// slowDown is what each slow_down adds to the interval, for good, and backOff
// the longest pause after trouble on the network, where the interval is not
// longer than half of it (RFC 8628 section 3.5).
const (
	slowDown = 5 * time.Second
	backOff  = 60 * time.Second
)

// Poll waits until the person has approved or denied, and at most until the
// code expires (RFC 8628 sections 3.4 and 3.5). It begins after one interval
// and never asks sooner than that.
//
// A network that fails, or a server that does for now, does not end it: trouble
// (if not nil) hears of each, and of nil when the provider answers again, and
// Poll backs off and goes on. Errors that end
// it are ErrDenied, ErrExpired, the context's cause, a *ProviderError and a
// *VerificationError.
func (c *Client) Poll(ctx context.Context, a *Authorization, trouble func(error)) (*Token, error) {
	form := url.Values{
		"grant_type":  {"urn:ietf:params:oauth:grant-type:device_code"},
		"device_code": {a.deviceCode.Reveal()},
		"client_id":   {c.config.ClientID},
	}
	if !a.verifier.Empty() {
		form.Set("code_verifier", a.verifier.Reveal())
	}
	// The keys are had before the code is used up: after it, a network that
	// fails would cost the person a second approval. Here it costs nothing.
	// No request outlives the code, whatever the client's own timeout is.
	untilEnd, cancel := context.WithTimeout(ctx, a.left())
	defer cancel()
	inTrouble := false
	if _, err := c.prefetchKeys(untilEnd); err != nil && trouble != nil && ctx.Err() == nil {
		inTrouble = true
		trouble(err)
	}

	interval := a.interval
	pause := interval
	gone := 0 // answers in a row that say that there is no such endpoint
	for {
		if err := a.sleep(ctx, pause); err != nil {
			return nil, err
		}
		var answer tokenAnswer
		err := c.post(untilEnd, c.endpoints.Token, form, &answer)
		if inTrouble && !Temporary(err) && trouble != nil {
			inTrouble = false
			trouble(nil)
		}
		if err == nil {
			return c.verifyPatiently(ctx, a, &answer, time.Now(), trouble)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !noEndpoint(err) {
			gone = -1
		}
		gone++
		var refused *ProviderError
		switch isProvider := errors.As(err, &refused); {
		case isProvider && refused.Code == "authorization_pending":
			pause = max(interval, refused.RetryAfter)
		case isProvider && refused.Code == "slow_down":
			interval += slowDown
			pause = max(interval, refused.RetryAfter)
		case isProvider && refused.Code == "access_denied":
			return nil, fmt.Errorf("%w (%w)", ErrDenied, refused)
		case isProvider && refused.Code == "expired_token":
			return nil, fmt.Errorf("%w (%w)", ErrExpired, refused)
		case gone >= most404:
			return nil, err
		case Temporary(err):
			if inTrouble = true; trouble != nil {
				trouble(err)
			}
			pause = max(interval, min(2*pause, max(backOff, 2*interval)), retryAfter(err))
		default:
			return nil, err
		}
	}
}

// verifyPatiently is for the one moment when a failing network would throw an
// approved login away: the code is used up and the keys are not there yet.
func (c *Client) verifyPatiently(ctx context.Context, a *Authorization, answer *tokenAnswer, received time.Time, trouble func(error)) (*Token, error) {
	// Approved at the last moment, it has this long for the keys.
	bounded, cancel := context.WithTimeout(ctx, a.left()+30*time.Second)
	defer cancel()
	gone := 0
	for pause := time.Second; ; pause = min(2*pause, backOff) {
		token, err := c.verify(bounded, answer, received)
		if !Temporary(err) {
			return token, err
		}
		if !noEndpoint(err) {
			gone = -1
		}
		if gone++; gone >= most404 {
			return nil, err
		}
		if trouble != nil {
			trouble(err)
		}
		if a.sleep(ctx, pause) != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, err
		}
	}
}

// most404 is how many answers in a row that nothing is there are believed.
const most404 = 3

// noEndpoint: nothing is there. One such answer may be a proxy's or a roll-out's.
func noEndpoint(err error) bool {
	var answer *AnswerError
	return errors.As(err, &answer) && (answer.Status == http.StatusNotFound || answer.Status == http.StatusMethodNotAllowed || answer.Status == http.StatusGone)
}

// sleep sleeps for d, and gives ErrExpired if that would pass the code's end.
func (a *Authorization) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(d, max(a.left(), 0)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	if a.left() <= 0 {
		return ErrExpired
	}
	return nil
}

// Previous is what a renewal must agree with.
type Previous struct {
	RefreshToken Secret
	Subject      string // empty: not known
	Audience     []string
}

// Format says which session it is. The token could not be printed anyway.
func (p Previous) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "session of subject %q (token not shown)", p.Subject)
}

// Refresh renews a session (RFC 6749 section 6). Trouble that passes is retried
// for some seconds.
//
// ErrRefreshRefused means that only a new login helps. The Token may come with
// an error: its refresh token has then replaced the previous one and must be
// kept, but its Bearer is empty.
func (c *Client) Refresh(ctx context.Context, previous Previous) (*Token, error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {previous.RefreshToken.Reveal()},
		"client_id":     {c.config.ClientID},
	}
	// As in Poll: the provider forgets the old refresh token with its answer,
	// so what can fail shall fail before.
	if err := retry(ctx, func() error { _, err := c.prefetchKeys(ctx); return err }); err != nil {
		return nil, err
	}
	var answer tokenAnswer
	var received time.Time
	// Here a torn answer too is asked for again, and at once: the provider may
	// have rotated the refresh token with it, and some take the old one for a
	// few seconds longer.
	err := retryWhere(ctx, Temporary, func() error {
		answer = tokenAnswer{}
		err := c.post(ctx, c.endpoints.Token, form, &answer)
		received = time.Now()
		return err
	})
	var refused *ProviderError
	// invalid_request is dex's word for a refresh token that it does not know;
	// the request is otherwise the one that has worked before.
	if errors.As(err, &refused) && (refused.Code == "invalid_grant" || refused.Code == "invalid_request") {
		return nil, fmt.Errorf("%w (%w)", ErrRefreshRefused, refused)
	}
	if err != nil {
		return nil, err
	}
	if answer.RefreshToken.Empty() {
		answer.RefreshToken = previous.RefreshToken // RFC 6749 section 6: the old one stays good
	}
	var token *Token
	err = retry(ctx, func() error {
		token, err = c.verify(ctx, &answer, received)
		return err
	})
	switch {
	case errors.Is(err, ErrNoIDToken) || Temporary(err) || ctx.Err() != nil:
		return &Token{refresh: answer.RefreshToken}, err
	case err != nil:
		return nil, err
	}
	// OpenID Connect Core section 12.2.
	if previous.Subject != "" && token.Subject != "" && token.Subject != previous.Subject {
		return nil, &VerificationError{Reason: fmt.Sprintf("the renewed token is of subject %q, the session of %q", token.Subject, previous.Subject)}
	}
	for _, aud := range previous.Audience {
		if !slices.Contains(token.Audience, aud) {
			return nil, &VerificationError{Reason: fmt.Sprintf("the renewed token is not for audience %q any more", aud)}
		}
	}
	return token, nil
}

// Hints for Revoke (RFC 7009 section 2.1).
const (
	HintRefreshToken = "refresh_token"
	HintAccessToken  = "access_token"
)

// Revoke ends a token at the provider (RFC 7009). A provider that does not
// know the token is content (section 2.2). ErrNoRevocation says that the
// provider has no way to do it.
func (c *Client) Revoke(ctx context.Context, token Secret, hint string) error {
	if c.endpoints.Revocation == "" {
		return ErrNoRevocation
	}
	form := url.Values{"token": {token.Reveal()}, "token_type_hint": {hint}, "client_id": {c.config.ClientID}}
	return retry(ctx, func() error { return c.post(ctx, c.endpoints.Revocation, form, nil) })
}
