package issuer

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

// slowDownStep is what each slow_down adds (RFC 8628 section 3.5).
const slowDownStep = 5 * time.Second

// code is a device code with its user code.
type code struct {
	device, user      string
	client            string
	scope, challenge  string
	audience          []string
	expires, lastPoll time.Time
	interval          time.Duration
	polls             int
	state             state
	session           *session       // once approved
	answer            map[string]any // once used
}

type state int

const (
	pending state = iota
	approved
	denied
	used
)

// answer is what an endpoint says. It is written without the mutex.
type answer struct {
	status int
	fields map[string]any // JSON
	page   []byte         // or HTML
	header map[string]string
	delay  time.Duration
}

// paths are the endpoints' places under the issuer's own.
type paths struct{ discovery, device, page, token, jwks, revoke, userinfo string }

func (is *Issuer) paths() paths {
	p := paths{"/.well-known/openid-configuration", "/device/authorize", "/device", "/token", "/jwks", "/revoke", "/userinfo"}
	switch is.shape {
	case WorkOS:
		p = paths{p.discovery, "/user_management/authorize/device", "/device", "/user_management/authenticate", "/sso/jwks/" + is.behaviour.ClientID, p.revoke, p.userinfo}
	case Google:
		p.device = "/device/code"
	case GitHub:
		p.device, p.page, p.token = "/login/device/code", "/login/device", "/login/oauth/access_token"
	case Dex:
		p.device, p.jwks = "/device/code", "/keys"
	}
	return p
}

// Handler serves all endpoints.
func (is *Issuer) Handler() http.Handler { return http.HandlerFunc(is.serve) }

func (is *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	const maxBody = 1 << 20
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	formErr := r.ParseForm()
	r.Body = io.NopCloser(bytes.NewReader(body)) // for a Fault

	endpoints := is.record(r)
	is.mu.Lock()
	w.Header().Set("Date", is.now().UTC().Format(http.TimeFormat))
	is.mu.Unlock()
	if is.faulty(endpoints, w, r) {
		return
	}
	a := is.route(endpoints[0], r, formErr)
	if a.delay > 0 {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(a.delay):
		}
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	switch {
	case a.page != nil:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'")
	case a.fields != nil && is.shape == GitHub && !strings.Contains(r.Header.Get("Accept"), "json"):
		w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		form := url.Values{}
		for name, value := range a.fields {
			form.Set(name, fmt.Sprint(value))
		}
		a.page = []byte(form.Encode())
	case a.fields != nil:
		w.Header().Set("Content-Type", "application/json")
		a.page = mustJSON(a.fields)
	}
	w.WriteHeader(a.status)
	w.Write(a.page) // a client that is gone does not matter
}

// record notes a request under its endpoint, and a token request under its
// grant too.
func (is *Issuer) record(r *http.Request) []string {
	is.mu.Lock()
	defer is.mu.Unlock()
	p := is.paths()
	endpoints := []string{"other"}
	if path, ok := strings.CutPrefix(r.URL.Path, is.prefix); ok {
		for name, at := range map[string]string{
			"discovery": p.discovery, "device": p.device, "page": p.page, "token": p.token,
			"jwks": p.jwks, "revoke": p.revoke, "userinfo": p.userinfo,
		} {
			if path == at {
				endpoints[0] = name
			}
		}
	}
	if endpoints[0] == "token" {
		switch r.PostForm.Get("grant_type") {
		case deviceGrant:
			endpoints = append(endpoints, "poll")
		case "refresh_token":
			endpoints = append(endpoints, "refresh")
		}
	}
	form := url.Values{}
	for name, values := range r.Form {
		form[name] = slices.Clone(values)
	}
	for _, endpoint := range endpoints {
		is.requests[endpoint] = append(is.requests[endpoint], Request{r.Method, r.URL.Path, form, r.Header.Clone(), time.Now()})
	}
	is.sentinel(r.PostForm.Get("code_verifier"), r.PostForm.Get("client_secret"))
	if _, credentials, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
		is.sentinel(credentials)
	}
	return endpoints
}

func (is *Issuer) route(endpoint string, r *http.Request, formErr error) answer {
	is.mu.Lock()
	defer is.mu.Unlock()
	b := &is.behaviour
	plain := is.shape == WorkOS || is.shape == GitHub // no OpenID here
	switch {
	case endpoint == "other", plain && (endpoint == "discovery" || endpoint == "userinfo"), is.shape == GitHub && endpoint == "jwks",
		b.NoDeviceGrant && (endpoint == "device" || endpoint == "page"), b.NoRevocation && endpoint == "revoke":
		return answer{status: http.StatusNotFound, page: []byte("<!doctype html><title>Not found</title><h1>Not found</h1>\n")}
	case endpoint == "page":
		return is.page(r)
	case endpoint == "discovery":
		return answer{status: http.StatusOK, fields: is.discovery()}
	case endpoint == "jwks":
		return answer{status: http.StatusOK, fields: map[string]any{"keys": is.publicKeys().Keys}}
	case endpoint == "userinfo":
		return is.userinfo(r)
	case r.Method != http.MethodPost:
		return answer{status: http.StatusMethodNotAllowed, fields: map[string]any{"error": "invalid_request"}, header: map[string]string{"Allow": "POST"}}
	case formErr != nil:
		return is.refuse("invalid_request", "the form cannot be read")
	}
	for name, values := range r.PostForm {
		// RFC 6749 section 3.2; RFC 8707 section 2 has the exceptions.
		if len(values) > 1 && name != "resource" && name != "audience" {
			return is.refuse("invalid_request", "parameter sent twice: "+name)
		}
	}
	if refused := is.authenticate(endpoint, r); refused != nil {
		return *refused
	}
	switch endpoint {
	case "device":
		return is.authorize(r.PostForm)
	case "revoke":
		return is.revoke(r.PostForm)
	}
	switch r.PostForm.Get("grant_type") {
	case deviceGrant:
		if b.NoDeviceGrant {
			break
		}
		return is.poll(r.PostForm)
	case "refresh_token":
		return is.renew(r.PostForm)
	case "":
		return is.refuse("invalid_request", "grant_type is missing")
	}
	return is.refuse("unsupported_grant_type", "this grant is not known here")
}

// refuse is an error answer (RFC 6749 section 5.2).
func (is *Issuer) refuse(code, description string) answer {
	status := http.StatusBadRequest
	if code == "invalid_client" {
		status = http.StatusUnauthorized
	}
	for _, name := range []string{"*", code} {
		if s, ok := is.behaviour.ErrorStatus[name]; ok {
			status = s
		}
	}
	a := answer{status: status, fields: map[string]any{"error": code}, header: noStore()}
	if is.shape != Dex {
		a.fields["error_description"] = description
	}
	return a
}

func noStore() map[string]string { return map[string]string{"Cache-Control": "no-store"} }

// authenticate checks the client (RFC 6749 section 2.3.1); nil if it is good.
func (is *Issuer) authenticate(endpoint string, r *http.Request) *answer {
	b := &is.behaviour
	bad := func(code, description string) *answer {
		if is.shape == GitHub && code == "invalid_client" {
			code = "incorrect_client_credentials"
		}
		a := is.refuse(code, description)
		if r.Header.Get("Authorization") != "" {
			a.header["WWW-Authenticate"] = `Basic realm="issuer"`
		}
		return &a
	}
	id, secret, method := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret"), "client_secret_post"
	if r.Header.Get("Authorization") != "" {
		name, password, ok := r.BasicAuth()
		name, err1 := url.QueryUnescape(name)
		password, err2 := url.QueryUnescape(password)
		switch {
		case !ok || err1 != nil || err2 != nil:
			return bad("invalid_client", "the authorization header cannot be read")
		case secret != "":
			return bad("invalid_request", "more than one way of client authentication")
		case id != "" && id != name:
			return bad("invalid_client", "two different clients")
		}
		id, secret, method = name, password, "client_secret_basic"
	}
	switch {
	case id != b.ClientID:
		return bad("invalid_client", "this client is not known")
	case secret == "" && endpoint == "device" && is.shape == Google:
	case secret != b.ClientSecret:
		return bad("invalid_client", "client authentication failed")
	case secret != "" && !slices.Contains(is.authMethods(), method):
		return bad("invalid_client", method+" is not allowed")
	}
	return nil
}

func (is *Issuer) authMethods() []string {
	switch {
	case is.behaviour.AuthMethods != nil:
		return is.behaviour.AuthMethods
	case is.behaviour.ClientSecret != "":
		return []string{"client_secret_basic", "client_secret_post"}
	}
	return []string{"none"}
}

func (is *Issuer) discovery() map[string]any {
	b, p, at := &is.behaviour, is.paths(), is.base+is.prefix
	doc := map[string]any{
		"issuer":                                is.URL(),
		"token_endpoint":                        at + p.token,
		"jwks_uri":                              at + p.jwks,
		"userinfo_endpoint":                     at + p.userinfo,
		"response_types_supported":              []string{"none"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{is.algorithm},
		"scopes_supported":                      is.supportedScopes(),
		"token_endpoint_auth_methods_supported": is.authMethods(),
		"claims_supported":                      []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "preferred_username", "name", "email", "groups"},
		"grant_types_supported":                 []string{"refresh_token"},
	}
	if b.WrongIssuerInDiscovery != "" {
		doc["issuer"] = b.WrongIssuerInDiscovery
	}
	if !b.NoDeviceGrant {
		doc["device_authorization_endpoint"] = at + p.device
		doc["grant_types_supported"] = []string{"refresh_token", deviceGrant}
	}
	if !b.NoRevocation {
		doc["revocation_endpoint"] = at + p.revoke
	}
	if b.PKCE != "" {
		doc["code_challenge_methods_supported"] = []string{"S256"}
	}
	override(doc, b.DiscoveryFields)
	return doc
}

func (is *Issuer) supportedScopes() []string {
	if is.shape == Google {
		return []string{"openid", "email", "profile"}
	}
	return []string{"openid", "profile", "email", "groups", "offline_access"}
}

// authorize is RFC 8628 sections 3.1 and 3.2.
func (is *Issuer) authorize(form url.Values) answer {
	b := &is.behaviour
	challenge := form.Get("code_challenge")
	switch {
	case challenge == "" && b.PKCE == "required":
		return is.refuse("invalid_request", "code_challenge is missing")
	case challenge != "" && form.Get("code_challenge_method") != "S256":
		return is.refuse("invalid_request", "code_challenge_method must be S256")
	}
	if is.shape == Google {
		for _, s := range scopes(form.Get("scope")) {
			if !slices.Contains(is.supportedScopes(), s) {
				return is.refuse("invalid_scope", "this scope is not for devices: "+s)
			}
		}
	}
	c := &code{
		device: "devicecode-SENTINEL-" + rand.Text(), user: newUserCode(),
		client: b.ClientID, scope: form.Get("scope"), challenge: challenge, audience: slices.Concat(form["audience"], form["resource"]),
		expires: time.Now().Add(b.CodeLifetime), interval: 5 * time.Second,
	}
	for name, to := range map[string]*string{"device_code": &c.device, "user_code": &c.user} {
		if s, ok := b.DeviceFields[name].(string); ok && s != "" {
			*to = s
		}
	}
	page := is.base + is.prefix + is.paths().page
	uri := "verification_uri"
	if b.LegacyVerificationURL {
		uri = "verification_url"
	}
	fields := map[string]any{"device_code": c.device, "user_code": c.user, uri: page, "expires_in": int(b.CodeLifetime.Seconds())}
	if !b.NoComplete {
		fields[uri+"_complete"] = page + "?user_code=" + url.QueryEscape(c.user)
	}
	if b.Interval != 0 {
		fields["interval"] = b.Interval
	}
	override(fields, b.DeviceFields)
	if seconds, err := strconv.ParseFloat(fmt.Sprint(fields["interval"]), 64); err == nil && seconds > 0 && seconds < 1e6 {
		c.interval = time.Duration(seconds * float64(time.Second))
	}
	is.sentinel(c.device)
	is.codes = append(is.codes, c)
	return answer{status: http.StatusOK, fields: fields, header: noStore()}
}

// newUserCode has the letters that RFC 8628 section 6.1 suggests.
func newUserCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	var random [8]byte
	rand.Read(random[:]) // never fails
	for i := range random {
		random[i] = letters[int(random[i])%len(letters)]
	}
	return string(random[:4]) + "-" + string(random[4:])
}

// pending finds the login that still waits for a person; nil if none does.
func (is *Issuer) pending(userCode string) *code {
	c := is.findUserCode(userCode)
	if c == nil || c.state != pending || !time.Now().Before(c.expires) {
		return nil
	}
	return c
}

func (is *Issuer) findUserCode(userCode string) *code {
	plain := func(s string) string { return strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(s)) }
	for _, c := range slices.Backward(is.codes) {
		if plain(c.user) == plain(userCode) {
			return c
		}
	}
	return nil
}

func (is *Issuer) approve(c *code) {
	c.state = approved
	c.session = &session{client: c.client, scope: c.scope, subject: is.behaviour.User.Subject, audience: c.audience, authTime: time.Now()}
}

// poll is RFC 8628 sections 3.4 and 3.5.
func (is *Issuer) poll(form url.Values) answer {
	b, now := &is.behaviour, time.Now()
	i := slices.IndexFunc(is.codes, func(c *code) bool { return c.device == form.Get("device_code") })
	if i < 0 || is.codes[i].client != b.ClientID {
		unknown := map[string]string{GitHub: "incorrect_device_code", Dex: "invalid_request"}[is.shape]
		if unknown == "" {
			unknown = "invalid_grant"
		}
		return is.refuse(unknown, "this device code is not known")
	}
	c := is.codes[i]
	// The verifier belongs to each poll, so each poll is checked (RFC 7636
	// section 4.6). One without a challenge is refused too (RFC 9700 section 2.1.1).
	if verifier := form.Get("code_verifier"); verifier != "" || c.challenge != "" {
		if sum := sha256.Sum256([]byte(verifier)); segment(sum[:]) != c.challenge {
			return is.refuse("invalid_grant", "the code_verifier does not fit")
		}
	}
	if c.state == used {
		if is.shape == Dex {
			return answer{status: http.StatusOK, fields: maps.Clone(c.answer), header: noStore()}
		}
		return is.refuse("invalid_grant", "this device code was used already")
	}
	if !now.Before(c.expires) {
		return is.refuse("expired_token", "the code has expired")
	}
	c.polls++
	tooSoon := b.EnforceInterval && !c.lastPoll.IsZero() && now.Sub(c.lastPoll) < c.interval
	c.lastPoll = now
	if tooSoon || slices.Contains(b.SlowDownOnPolls, c.polls) {
		c.interval += slowDownStep
		a := is.refuse("slow_down", "polled too fast")
		if is.shape == GitHub {
			a.fields["interval"] = int(c.interval.Seconds())
		}
		return a
	}
	switch {
	case c.state == pending && b.DenyAfterPolls > 0 && c.polls >= b.DenyAfterPolls:
		c.state = denied
	case c.state == pending && b.ApproveAfterPolls > 0 && c.polls >= b.ApproveAfterPolls:
		is.approve(c)
	}
	switch c.state {
	case pending:
		return is.refuse("authorization_pending", "nobody has approved yet")
	case denied:
		return is.refuse("access_denied", "the login was denied")
	}
	c.state = used
	fields := is.tokens(c.session, c.session.scope)
	if !b.NoRefreshToken && (!b.OfflineScopeNeeded || c.session.has("offline_access")) {
		fields["refresh_token"] = is.newRefreshToken(c.session)
	}
	is.overrideTokens(fields)
	c.answer = fields
	return answer{status: http.StatusOK, fields: maps.Clone(fields), header: noStore()}
}

// renew is RFC 6749 section 6, with the rotation of RFC 9700 section 4.14.2.
func (is *Issuer) renew(form url.Values) answer {
	b := &is.behaviour
	bad := func(description string) answer {
		if b.InvalidGrantCode != "" {
			return is.refuse(b.InvalidGrantCode, description)
		}
		return is.refuse("invalid_grant", description)
	}
	r := is.findRefresh(form.Get("refresh_token"))
	switch {
	case r == nil || r.session.client != b.ClientID:
		return bad("this refresh token is not known")
	case r.session.revoked:
		return bad("this session was revoked")
	case r.used:
		r.session.revoked = b.RevokeFamilyOnReuse
		return bad("this refresh token was used already")
	}
	scope := r.session.scope
	if asked := form.Get("scope"); asked != "" {
		for _, s := range scopes(asked) {
			if !r.session.has(s) {
				return is.refuse("invalid_scope", "this scope was not granted: "+s)
			}
		}
		scope = asked
	}
	fields := is.tokens(r.session, scope)
	if b.NoIDTokenAtRefresh {
		delete(fields, "id_token")
	}
	if b.RotateRefresh && !b.NoRefreshToken {
		r.used = true
		fields["refresh_token"] = is.newRefreshToken(r.session)
	}
	is.overrideTokens(fields)
	return answer{status: http.StatusOK, fields: fields, header: noStore(), delay: b.RefreshDelay}
}

// revoke is RFC 7009: a token that is not known is as good as revoked.
func (is *Issuer) revoke(form url.Values) answer {
	token := form.Get("token")
	if token == "" {
		return is.refuse("invalid_request", "token is missing")
	}
	if a := is.access[token]; a != nil {
		a.revoked = true
	}
	if r := is.findRefresh(token); r != nil {
		if r.session.client != is.behaviour.ClientID {
			return is.refuse("invalid_grant", "this token is another client's")
		}
		r.session.revoked = true
	}
	return answer{status: http.StatusOK}
}

func (is *Issuer) userinfo(r *http.Request) answer {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a := is.access[token]
	if a == nil || a.revoked || a.session.revoked || !time.Now().Before(a.expires) {
		return answer{status: http.StatusUnauthorized, fields: map[string]any{"error": "invalid_token"}, header: map[string]string{"WWW-Authenticate": `Bearer error="invalid_token"`}}
	}
	u := is.behaviour.User
	return answer{status: http.StatusOK, fields: map[string]any{"sub": a.session.subject, "preferred_username": u.Username, "email": u.Email, "groups": u.Groups}}
}
