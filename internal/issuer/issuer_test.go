package issuer

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// client is a plain device: it knows nothing but the issuer's answers.
type client struct {
	*testing.T
	is     *Issuer
	http   *http.Client
	header http.Header
}

type fields map[string]any

func (f fields) str(name string) string { s, _ := f[name].(string); return s }

func start(t *testing.T, o Options, set func(*Behaviour)) *client {
	t.Helper()
	is, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(is.Close)
	if set != nil {
		is.Set(set)
	}
	return &client{T: t, is: is, http: http.DefaultClient, header: http.Header{"Accept": {"application/json"}}}
}

func (c *client) post(at string, form url.Values) (int, fields) {
	c.Helper()
	if form.Get("client_id") == "" {
		form.Set("client_id", "kubectl")
	}
	req, err := http.NewRequest(http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		c.Fatal(err)
	}
	req.Header = c.header.Clone()
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.do(req)
}

func (c *client) get(at string) (int, fields) {
	c.Helper()
	req, err := http.NewRequest(http.MethodGet, at, nil)
	if err != nil {
		c.Fatal(err)
	}
	return c.do(req)
}

func (c *client) do(req *http.Request) (int, fields) {
	c.Helper()
	resp, err := c.http.Do(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	var f fields
	if json.Unmarshal(body, &f) != nil {
		f = fields{"raw": string(body)}
	}
	return resp.StatusCode, f
}

func (c *client) at(endpoint string) string {
	p := map[string]string{"device": c.is.paths().device, "token": c.is.paths().token, "revoke": c.is.paths().revoke, "page": c.is.paths().page}
	return c.is.base + c.is.prefix + p[endpoint]
}

func (c *client) device(pairs ...string) fields {
	c.Helper()
	status, f := c.post(c.at("device"), form("scope", "openid offline_access", pairs...))
	if status != 200 {
		c.Fatalf("device: %d %v", status, f)
	}
	return f
}

func (c *client) poll(deviceCode string, pairs ...string) (int, fields) {
	c.Helper()
	return c.post(c.at("token"), form("grant_type", deviceGrant, append(pairs, "device_code", deviceCode)...))
}

func (c *client) renew(token string, pairs ...string) (int, fields) {
	c.Helper()
	return c.post(c.at("token"), form("grant_type", "refresh_token", append(pairs, "refresh_token", token)...))
}

// login takes the road that goes well.
func (c *client) login() fields {
	c.Helper()
	d := c.device()
	if err := c.is.Approve(d.str("user_code")); err != nil {
		c.Fatal(err)
	}
	status, f := c.poll(d.str("device_code"))
	if status != 200 {
		c.Fatalf("poll: %d %v", status, f)
	}
	return f
}

func (c *client) want(status int, f fields, wantStatus int, wantError string) {
	c.Helper()
	if status != wantStatus || f.str("error") != wantError {
		c.Errorf("answer %d %v, want %d %q", status, f, wantStatus, wantError)
	}
}

func (c *client) verify(raw string) (*oidc.IDToken, error) {
	c.Helper()
	ctx := oidc.ClientContext(context.Background(), c.http)
	provider, err := oidc.NewProvider(ctx, c.is.URL())
	if err != nil {
		c.Fatal(err)
	}
	return provider.Verifier(&oidc.Config{ClientID: "kubectl"}).Verify(ctx, raw)
}

func form(name, value string, pairs ...string) url.Values {
	f := url.Values{name: {value}}
	for i := 0; i+1 < len(pairs); i += 2 {
		f.Set(pairs[i], pairs[i+1])
	}
	return f
}

func TestLogin(t *testing.T) {
	for _, o := range []Options{{}, {Path: "/realms/test", Algorithm: "RS256"}, {Path: "/", Algorithm: "PS256"}, {Algorithm: "ES384"}} {
		c := start(t, o, nil)
		d := c.device()
		if d.str("verification_uri_complete") != d.str("verification_uri")+"?user_code="+d.str("user_code") || d["interval"] != 5.0 || d["expires_in"] != 600.0 {
			t.Errorf("device answer %v", d)
		}
		status, f := c.poll(d.str("device_code"))
		c.want(status, f, 400, "authorization_pending")
		if got := c.is.PendingCodes(); !slices.Equal(got, []string{d.str("user_code")}) {
			t.Errorf("pending %v", got)
		}
		if err := c.is.Approve(strings.ToLower(strings.ReplaceAll(d.str("user_code"), "-", ""))); err != nil {
			t.Error(err)
		}
		if c.is.Approve(d.str("user_code")) == nil || len(c.is.PendingCodes()) != 0 {
			t.Error("approved twice")
		}
		status, f = c.poll(d.str("device_code"))
		c.want(status, f, 200, "")
		token, err := c.verify(f.str("id_token"))
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			AuthTime int64    `json:"auth_time"`
			Name     string   `json:"preferred_username"`
			Groups   []string `json:"groups"`
			Azp      any      `json:"azp"`
		}
		if err := token.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if token.Subject != "subject-1" || claims.Name != "ada" || len(claims.Groups) != 2 || claims.AuthTime == 0 || claims.Azp != nil {
			t.Errorf("claims %+v of %s", claims, token.Subject)
		}
		status, again := c.poll(d.str("device_code"))
		c.want(status, again, 400, "invalid_grant")

		secrets := c.is.Sentinels()
		for _, name := range []string{"id_token", "access_token", "refresh_token"} {
			if !slices.Contains(secrets, f.str(name)) {
				t.Errorf("%s is no sentinel", name)
			}
		}
		if id := f.str("id_token"); !slices.Contains(secrets, d.str("device_code")) || !slices.Contains(secrets, id[strings.LastIndex(id, ".")+1:]) || slices.Contains(secrets, "") {
			t.Error("device code or signature is no sentinel, or the empty string is one")
		}
		if c.is.Count("poll") != 3 || c.is.Count("token") != 3 || c.is.Count("discovery") != 1 || c.is.Requests("device")[0].Form.Get("scope") != "openid offline_access" {
			t.Error("requests are not counted")
		}
	}
}

func TestPollingAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		is := New(Options{})
		c := &client{T: t, is: is, http: is.Client(), header: http.Header{}}
		is.Set(func(b *Behaviour) { b.EnforceInterval, b.ApproveAfterPolls, b.SlowDownOnPolls = true, 5, []int{4} })
		code := c.device().str("device_code")
		// The interval begins at 5 s; each slow_down adds 5 s for good.
		for i, step := range []struct {
			wait time.Duration
			want string
		}{{0, "authorization_pending"}, {4 * time.Second, "slow_down"}, {10 * time.Second, "authorization_pending"}, {10 * time.Second, "slow_down"}, {14 * time.Second, "slow_down"}, {20 * time.Second, ""}} {
			time.Sleep(step.wait)
			if _, f := c.poll(code); f.str("error") != step.want {
				t.Errorf("poll %d: %v, want %q", i+1, f, step.want)
			}
		}
		expired, denied, ended := c.device(), c.device(), c.device()
		if err := errors.Join(is.Deny(denied.str("user_code")), is.Expire(ended.str("user_code"))); err != nil {
			t.Fatal(err)
		}
		_, f := c.poll(denied.str("device_code"))
		c.want(400, f, 400, "access_denied")
		_, f = c.poll(ended.str("device_code"))
		c.want(400, f, 400, "expired_token")
		time.Sleep(10 * time.Minute)
		_, f = c.poll(expired.str("device_code"))
		c.want(400, f, 400, "expired_token")
		if is.Approve(expired.str("user_code")) == nil {
			t.Error("an expired code was approved")
		}
		_, f = c.poll("devicecode-SENTINEL-unknown")
		c.want(400, f, 400, "invalid_grant")

		// A client that gives up, one that meets a hanging server, and one that goes elsewhere.
		is.Set(func(b *Behaviour) { b.SlowDownOnPolls, b.ApproveAfterPolls, b.RefreshDelay = nil, 1, time.Minute })
		_, f = c.poll(c.device().str("device_code"))
		impatient := is.Client()
		impatient.Timeout = time.Second
		post := func(at string) error {
			_, err := impatient.PostForm(at, form("grant_type", "refresh_token", "client_id", "kubectl", "refresh_token", f.str("refresh_token")))
			return err
		}
		begin := time.Now()
		if err := post(c.at("token")); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("a slow answer: %v after %s", err, time.Since(begin))
		}
		if slices.Contains(is.RefreshTokens(), f.str("refresh_token")) {
			t.Error("the token was not rotated before the delay")
		}
		is.Fault("token", 1, Hang)
		is.Fault("refresh", 1, Drop)
		if err := post(c.at("token")); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a dropped connection: %v", err)
		}
		if err := post(c.at("token")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hanging server: %v", err)
		}
		if err := post("https://elsewhere.test/token"); err == nil || !strings.Contains(err.Error(), "no such host") {
			t.Errorf("another host: %v", err)
		}
	})
}

func TestRefresh(t *testing.T) {
	c := start(t, Options{}, nil)
	first := c.login()
	c.is.Set(func(b *Behaviour) { b.User.Subject, b.User.Email = "subject-2", "new@example.com" })
	status, second := c.renew(first.str("refresh_token"))
	c.want(status, second, 200, "")
	token, err := c.verify(second.str("id_token"))
	if err != nil || token.Subject != "subject-1" || second.str("id_token") == first.str("id_token") {
		t.Errorf("renewed: %v %v", token, err)
	}
	if got := c.is.RefreshTokens(); !slices.Equal(got, []string{second.str("refresh_token")}) {
		t.Errorf("live %v", got)
	}
	status, f := c.renew(second.str("refresh_token"), "scope", "openid groups")
	c.want(status, f, 400, "invalid_scope")
	if c.is.Revoked(first.str("refresh_token")) {
		t.Error("rotated is not revoked")
	}
	status, f = c.renew(first.str("refresh_token"))
	c.want(status, f, 400, "invalid_grant")
	status, f = c.renew(second.str("refresh_token"))
	c.want(status, f, 400, "invalid_grant")
	if !c.is.Revoked(second.str("refresh_token")) || !c.is.Revoked(second.str("access_token")) || len(c.is.RefreshTokens()) != 0 {
		t.Error("reuse did not end the session")
	}

	c.is.Set(func(b *Behaviour) { b.RevokeFamilyOnReuse, b.InvalidGrantCode = false, "invalid_request" })
	first = c.login()
	_, second = c.renew(first.str("refresh_token"))
	status, f = c.renew(first.str("refresh_token"))
	c.want(status, f, 400, "invalid_request")
	c.is.Set(func(b *Behaviour) { b.RotateRefresh, b.NoIDTokenAtRefresh = false, true })
	for range 2 {
		status, f = c.renew(second.str("refresh_token"))
		c.want(status, f, 200, "")
		if f["refresh_token"] != nil || f["id_token"] != nil {
			t.Errorf("answer %v", f)
		}
	}

	status, f = c.post(c.at("revoke"), form("token", second.str("refresh_token")))
	c.want(status, f, 200, "")
	status, f = c.post(c.at("revoke"), form("token", "unknown"))
	c.want(status, f, 200, "")
	status, f = c.renew(second.str("refresh_token"))
	c.want(status, f, 400, "invalid_request")
	c.is.Set(func(b *Behaviour) { b.NoRevocation = true })
	if status, _ = c.post(c.at("revoke"), form("token", "unknown")); status != 404 {
		t.Errorf("revocation: %d", status)
	}
	if _, doc := c.get(c.is.URL() + "/.well-known/openid-configuration"); doc["revocation_endpoint"] != nil {
		t.Error("revocation is in discovery")
	}

	c.is.Set(func(b *Behaviour) { b.OfflineScopeNeeded, b.ApproveAfterPolls = true, 1 })
	if _, f = c.poll(c.device("scope", "openid").str("device_code")); f["refresh_token"] != nil || f["id_token"] == nil {
		t.Errorf("without offline_access: %v", f)
	}
	if _, f = c.poll(c.device("scope", "offline_access").str("device_code")); f["refresh_token"] == nil || f["id_token"] != nil {
		t.Errorf("without openid: %v", f)
	}
}

func TestClientAuthentication(t *testing.T) {
	const secret = "client-secret-SENTINEL-%&+ü"
	c := start(t, Options{}, func(b *Behaviour) { b.ClientSecret, b.ApproveAfterPolls = secret, 1 })
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(user)+":"+url.QueryEscape(password)))
	}
	for name, test := range map[string]struct {
		basic, post string
		methods     []string
		status      int
		code        string
	}{
		"basic":       {basic: basic("kubectl", secret), status: 200},
		"post":        {post: secret, status: 200},
		"none":        {status: 401, code: "invalid_client"},
		"wrong":       {post: "wrong", status: 401, code: "invalid_client"},
		"wrong basic": {basic: basic("kubectl", "wrong"), status: 401, code: "invalid_client"},
		"other":       {basic: basic("other", secret), status: 401, code: "invalid_client"},
		"both":        {basic: basic("kubectl", secret), post: secret, status: 400, code: "invalid_request"},
		"not allowed": {basic: basic("kubectl", secret), methods: []string{"client_secret_post"}, status: 401, code: "invalid_client"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &client{T: t, is: c.is, http: c.http, header: http.Header{}}
			c.is.Set(func(b *Behaviour) { b.AuthMethods = test.methods })
			if test.basic != "" {
				c.header.Set("Authorization", test.basic)
			}
			f := form("token", "unknown")
			if test.post != "" {
				f.Set("client_secret", test.post)
			}
			status, got := c.post(c.at("revoke"), f)
			c.want(status, got, test.status, test.code)
		})
	}
	if s := c.is.Sentinels(); !slices.Contains(s, secret) || !slices.Contains(s, strings.TrimPrefix(basic("kubectl", secret), "Basic ")) {
		t.Error("the credentials are no sentinels")
	}
	c.is.Set(func(b *Behaviour) { b.ClientSecret, b.AuthMethods = "", nil })
	status, f := c.post(c.at("device"), form("client_id", "other"))
	c.want(status, f, 401, "invalid_client")
	status, f = c.post(c.at("device"), url.Values{"scope": {"openid", "email"}})
	c.want(status, f, 400, "invalid_request")
	code := c.device().str("device_code")
	c.is.Set(func(b *Behaviour) { b.ClientID = "other" })
	status, f = c.post(c.at("token"), form("grant_type", deviceGrant, "device_code", code, "client_id", "other"))
	c.want(status, f, 400, "invalid_grant")
}

func TestPKCE(t *testing.T) {
	c := start(t, Options{}, func(b *Behaviour) { b.PKCE, b.ApproveAfterPolls = "required", 1 })
	status, f := c.post(c.at("device"), form("scope", "openid"))
	c.want(status, f, 400, "invalid_request")
	sum := sha256.Sum256([]byte("verifier-of-the-test"))
	d := c.device("code_challenge", base64.RawURLEncoding.EncodeToString(sum[:]), "code_challenge_method", "S256")
	for _, verifier := range []string{"", "wrong"} {
		status, f = c.poll(d.str("device_code"), "code_verifier", verifier)
		c.want(status, f, 400, "invalid_grant")
	}
	status, f = c.poll(d.str("device_code"), "code_verifier", "verifier-of-the-test")
	c.want(status, f, 200, "")
	c.is.Set(func(b *Behaviour) { b.PKCE = "" })
	status, f = c.poll(c.device().str("device_code"), "code_verifier", "verifier-of-the-test")
	c.want(status, f, 400, "invalid_grant")
}

func TestBadTokens(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(*Behaviour)
		want string // in go-oidc's error; empty: a good token
	}{
		"good":           {func(*Behaviour) {}, ""},
		"no key id":      {func(b *Behaviour) { b.Signing = "no-kid" }, ""},
		"several":        {func(b *Behaviour) { b.ExtraAudiences = []string{"project"} }, ""},
		"unsigned":       {func(b *Behaviour) { b.Signing = "none" }, "unexpected signature algorithm"},
		"symmetric":      {func(b *Behaviour) { b.Signing = "HS256" }, "unexpected signature algorithm"},
		"forged":         {func(b *Behaviour) { b.Signing = "other-key" }, "failed to verify"},
		"issuer":         {func(b *Behaviour) { b.WrongIssuerInToken = "https://evil.test" }, "issued by a different provider"},
		"audience":       {func(b *Behaviour) { b.Audience = []string{"other"} }, "expected audience"},
		"no audience":    {func(b *Behaviour) { b.Audience = []string{} }, "expected audience"},
		"expired":        {func(b *Behaviour) { b.IDTokenLifetime = -time.Hour }, "expired"},
		"claims deleted": {func(b *Behaviour) { b.ExtraClaims = map[string]any{"exp": Missing{}} }, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, Options{}, test.set)
			_, err := c.verify(c.login().str("id_token"))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}

	c := start(t, Options{}, func(b *Behaviour) { b.JWTAccessToken = true })
	old := c.login()
	if _, err := c.verify(old.str("access_token")); err != nil {
		t.Error(err)
	}
	c.is.RotateKey(true)
	if _, err := c.verify(old.str("id_token")); err != nil {
		t.Error(err)
	}
	c.is.RotateKey(false)
	if _, err := c.verify(old.str("id_token")); err == nil {
		t.Error("a token of an old key is still good")
	}
	if _, err := c.verify(c.login().str("id_token")); err != nil {
		t.Error(err)
	}
}

func TestOverrides(t *testing.T) {
	c := start(t, Options{}, func(b *Behaviour) {
		b.DeviceFields = map[string]any{"user_code": "WDJB-MJHT", "expires_in": "600", "interval": nil}
		b.TokenFields = map[string]any{"token_type": "bearer"}
		b.ExpiresIn, b.ScopesGranted = Missing{}, "openid"
		b.DiscoveryFields = map[string]any{"scopes_supported": nil}
		b.WrongIssuerInDiscovery = "https://evil.test"
		b.ErrorStatus = map[string]int{"authorization_pending": 428}
	})
	d := c.device()
	if _, there := d["interval"]; there || d["expires_in"] != "600" || !strings.HasSuffix(d.str("verification_uri_complete"), "=WDJB-MJHT") {
		t.Errorf("device %v", d)
	}
	status, f := c.poll(d.str("device_code"))
	c.want(status, f, 428, "authorization_pending")
	if err := c.is.Approve("WDJB-MJHT"); err != nil {
		t.Fatal(err)
	}
	_, f = c.poll(d.str("device_code"))
	if _, there := f["expires_in"]; there || f["token_type"] != "bearer" || f["scope"] != "openid" {
		t.Errorf("token %v", f)
	}
	if _, doc := c.get(c.is.URL() + "/.well-known/openid-configuration"); doc["issuer"] != "https://evil.test" || doc["scopes_supported"] != nil {
		t.Errorf("discovery %v", doc)
	}
	c.is.Set(func(b *Behaviour) { b.NoDeviceGrant = true })
	if status, _ = c.post(c.at("device"), url.Values{}); status != 404 {
		t.Errorf("device: %d", status)
	}
	status, f = c.poll(d.str("device_code"))
	c.want(status, f, 400, "unsupported_grant_type")
	if status, _ = c.get(c.at("token")); status != 405 {
		t.Errorf("GET token: %d", status)
	}
}

func TestFaults(t *testing.T) {
	c := start(t, Options{}, nil)
	code := c.device().str("device_code")
	c.is.Fault("token", 2, Error(503, "temporarily_unavailable", ""))
	c.is.Fault("poll", 1, Answer(502, "text/html", "<h1>Bad gateway</h1>", "Retry-After", "7"))
	c.is.Fault("poll", -1, func(w http.ResponseWriter, r *http.Request) bool { return r.PostForm.Get("device_code") == "" })
	for _, want := range []int{502, 503, 503, 400} {
		if status, f := c.poll(code); status != want {
			t.Errorf("%d %v, want %d", status, f, want)
		}
	}
	c.is.Fault("poll", -1, Error(429, "too_many", "slower"))
	status, f := c.poll(code)
	c.want(status, f, 429, "too_many")
	c.is.Fault("poll", 0, nil)
	status, f = c.poll(code)
	c.want(status, f, 400, "authorization_pending")
	c.is.Fault("discovery", -1, Drop)
	if _, err := http.Get(c.is.URL() + "/.well-known/openid-configuration"); err == nil {
		t.Error("the connection was not dropped")
	}
	c.is.Fault("jwks", 1, Hang)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, c.is.URL()+"/jwks", nil)
	if _, err := c.http.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hanging: %v", err)
	}
	if c.is.Count("poll") != 6 || c.is.Count("jwks") != 1 {
		t.Error("faults are not counted")
	}
}

func TestPage(t *testing.T) {
	c := start(t, Options{Path: "/tenant"}, nil)
	d := c.device("scope", "openid <b>")
	status, f := c.get(d.str("verification_uri"))
	if status != 200 || !strings.Contains(f.str("raw"), `name="user_code"`) {
		t.Errorf("%d %v", status, f)
	}
	status, f = c.get(d.str("verification_uri_complete"))
	for _, want := range []string{d.str("user_code"), "kubectl", "openid, &lt;b&gt;", `action="/tenant/device"`, `value="approve"`, `value="deny"`} {
		if status != 200 || !strings.Contains(f.str("raw"), want) {
			t.Errorf("%d, the page lacks %s", status, want)
		}
	}
	if strings.Contains(f.str("raw"), "SENTINEL") {
		t.Error("a secret is on the page")
	}
	if status, _ = c.post(c.at("page"), form("action", "approve", "user_code", "XXXX-XXXX")); status != 404 {
		t.Errorf("unknown code: %d", status)
	}
	if status, _ = c.post(c.at("page"), form("user_code", d.str("user_code"))); status != 400 {
		t.Errorf("no action: %d", status)
	}
	if status, f = c.post(c.at("page"), form("action", "approve", "user_code", d.str("user_code"))); status != 200 || !strings.Contains(f.str("raw"), "Approved") {
		t.Errorf("%d %v", status, f)
	}
	status, f = c.poll(d.str("device_code"))
	c.want(status, f, 200, "")
	d = c.device()
	c.post(c.at("page"), form("action", "deny", "user_code", d.str("user_code")))
	status, f = c.poll(d.str("device_code"))
	c.want(status, f, 400, "access_denied")
}

func TestShapes(t *testing.T) {
	t.Run("workos", func(t *testing.T) {
		c := start(t, Options{Shape: WorkOS}, nil)
		if status, _ := c.get(c.is.URL() + "/.well-known/openid-configuration"); status != 404 || c.is.Count("discovery") != 1 {
			t.Errorf("discovery: %d", status)
		}
		d := c.device()
		if !strings.HasSuffix(c.at("device"), "/user_management/authorize/device") || d["expires_in"] != 300.0 || d["interval"] != 5.0 {
			t.Errorf("device %v", d)
		}
		f := c.login()
		if f["id_token"] != nil || f["expires_in"] != nil || f["token_type"] != nil || f["scope"] != nil || f["user"] == nil || f.str("authentication_method") != "Password" {
			t.Errorf("answer %v", f)
		}
		set := oidc.NewRemoteKeySet(context.Background(), c.is.URL()+"/sso/jwks/kubectl")
		token, err := oidc.NewVerifier(c.is.URL(), set, &oidc.Config{SkipClientIDCheck: true, SupportedSigningAlgs: []string{"ES256"}}).Verify(context.Background(), f.str("access_token"))
		if err != nil || len(token.Audience) != 0 || token.Subject != "subject-1" {
			t.Errorf("%v %v", token, err)
		}
		status, f := c.renew(f.str("refresh_token"))
		c.want(status, f, 200, "")
	})
	t.Run("google", func(t *testing.T) {
		c := start(t, Options{Shape: Google}, nil)
		status, f := c.post(c.at("device"), form("scope", "openid offline_access"))
		c.want(status, f, 400, "invalid_scope")
		d := c.device("scope", "openid email")
		if d["verification_uri"] != nil || d.str("verification_url") == "" || !strings.HasSuffix(c.at("device"), "/device/code") {
			t.Errorf("device %v", d)
		}
		status, f = c.poll(d.str("device_code"))
		c.want(status, f, 401, "invalid_client")
		status, f = c.poll(d.str("device_code"), "client_secret", GoogleSecret)
		c.want(status, f, 428, "authorization_pending")
		c.is.Set(func(b *Behaviour) { b.SlowDownOnPolls = []int{2} })
		status, f = c.poll(d.str("device_code"), "client_secret", GoogleSecret)
		c.want(status, f, 403, "slow_down")
		if err := c.is.Deny(d.str("user_code")); err != nil {
			t.Error(err)
		}
		status, f = c.poll(d.str("device_code"), "client_secret", GoogleSecret)
		c.want(status, f, 403, "access_denied")
	})
	t.Run("github", func(t *testing.T) {
		c := start(t, Options{Shape: GitHub}, nil)
		d := c.device("scope", "read:user user:email")
		status, f := c.poll(d.str("device_code"))
		c.want(status, f, 200, "authorization_pending")
		status, f = c.poll(d.str("device_code"))
		c.want(status, f, 200, "slow_down")
		if f["interval"] != 10.0 {
			t.Errorf("slow_down %v", f)
		}
		c.is.Set(func(b *Behaviour) { b.EnforceInterval, b.ApproveAfterPolls = false, 1 })
		c.header.Del("Accept")
		_, f = c.poll(d.str("device_code"))
		values, err := url.ParseQuery(f.str("raw"))
		if err != nil || !strings.HasPrefix(values.Get("access_token"), "access-SENTINEL-") || values.Get("scope") != "read:user,user:email" || values.Has("id_token") || values.Has("expires_in") {
			t.Errorf("answer %v", f)
		}
	})
	t.Run("dex", func(t *testing.T) {
		c := start(t, Options{Shape: Dex}, nil)
		d := c.device()
		status, f := c.poll(d.str("device_code"))
		c.want(status, f, 401, "authorization_pending")
		if f["error_description"] != nil {
			t.Errorf("dex describes nothing: %v", f)
		}
		first := c.login()
		if first.str("token_type") != "bearer" {
			t.Errorf("answer %v", first)
		}
		c.is.Set(func(b *Behaviour) { b.EnforceInterval, b.ApproveAfterPolls = false, 1 })
		_, once := c.poll(d.str("device_code"))
		_, twice := c.poll(d.str("device_code"))
		if once.str("id_token") == "" || once.str("id_token") != twice.str("id_token") {
			t.Error("a used code gives the same tokens again")
		}
		status, f = c.renew("unknown")
		c.want(status, f, 400, "invalid_request")
		if _, f = c.get(c.at("page") + "?user_code=" + c.device().str("user_code")); strings.Contains(f.str("raw"), `value="deny"`) {
			t.Error("dex has no way to deny")
		}
	})
}

func TestTLS(t *testing.T) {
	is, err := Start(Options{TLS: true, Hosts: []string{"issuer.internal"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(is.Close)
	if _, err := http.Get(is.URL() + "/jwks"); err == nil {
		t.Error("trusted without its authority")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(is.CAPEM())
	for _, name := range []string{"", "localhost", "issuer.internal"} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}}
		resp, err := client.Get(is.URL() + "/jwks")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		resp.Body.Close()
	}
}

func TestUserinfo(t *testing.T) {
	c := start(t, Options{}, nil)
	f := c.login()
	ask := func() (int, fields) {
		req, _ := http.NewRequest(http.MethodGet, c.is.URL()+"/userinfo", nil)
		req.Header.Set("Authorization", "Bearer "+f.str("access_token"))
		return c.do(req)
	}
	if status, u := ask(); status != 200 || u.str("sub") != "subject-1" {
		t.Errorf("%d %v", status, u)
	}
	c.post(c.at("revoke"), form("token", f.str("access_token")))
	if status, _ := ask(); status != 401 || !c.is.Revoked(f.str("access_token")) || c.is.Revoked(f.str("refresh_token")) {
		t.Errorf("after revocation: %d", status)
	}
}
