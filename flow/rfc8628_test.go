package flow_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// rule is a subtest of TestRFC8628, or of TestBeyondRFC8628.
type rule struct {
	name    string // section and rule
	options issuer.Options
	set     func(*issuer.Behaviour)
	config  func(*flow.Config)
	check   func(t *testing.T, b *bench)
}

// TestRFC8628 has a subtest for each row of the table in rfc8628.go that this
// package answers for.
func TestRFC8628(t *testing.T) { run(t, rfc8628Rules()) }

func run(t *testing.T, rules []rule) {
	for _, tt := range rules {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, tt.options, func(t *testing.T, b *bench) {
				if tt.set != nil {
					b.is.Set(tt.set)
				}
				if tt.config != nil {
					tt.config(&b.config)
				}
				tt.check(t, b)
			})
		})
	}
}

const clientSecret = "client-secret-SENTINEL:+/ü"

func rfc8628Rules() []rule {
	return []rule{
		// Section 3.1, the device authorization request.
		{"3.1 form-encoded POST with client_id and scope", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 },
			func(c *flow.Config) { c.Scopes = []string{"groups", "openid"} },
			func(t *testing.T, b *bench) {
				b.mustLogin()
				r := b.is.Requests("device")[0]
				if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" ||
					r.Form.Get("client_id") != "kubectl" || r.Form.Get("scope") != "openid groups offline_access" {
					t.Errorf("got %s %v", r.Method, r.Form)
				}
			}},
		{"3.1 client authentication with client_secret_basic", issuer.Options{}, authenticated("client_secret_basic"), withSecret,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				wantAuthentication(t, b, "device", "client_secret_basic", 1)
			}},
		{"3.1 client authentication with client_secret_post", issuer.Options{}, authenticated("client_secret_post"), withSecret,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				wantAuthentication(t, b, "device", "client_secret_post", 1)
			}},
		{"3.1 no parameter twice and none without a value", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls, b.PKCE = 2, "S256" },
			func(c *flow.Config) {
				c.Scopes, c.OfflineAccess = []string{"openid", "groups", "groups", "offline_access"}, flow.Always
				c.ExtraParams = url.Values{"client_id": {"kubectl"}, "prompt": {"consent"}}
			},
			func(t *testing.T, b *bench) {
				b.mustLogin()
				for _, r := range slices.Concat(b.is.Requests("device"), b.is.Requests("poll")) {
					for name, values := range r.Form {
						if len(values) != 1 || values[0] == "" {
							t.Errorf("%s: %s was sent as %q", r.Path, name, values)
						}
					}
				}
				if scope := b.is.Requests("device")[0].Form.Get("scope"); scope != "openid groups offline_access" {
					t.Errorf("asked for %q", scope)
				}
			}},
		{"3.1 extra parameters", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 },
			func(c *flow.Config) { c.ExtraParams = url.Values{"audience": {"a", "b"}} },
			func(t *testing.T, b *bench) {
				b.mustLogin()
				if got := b.is.Requests("device")[0].Form["audience"]; !slices.Equal(got, []string{"a", "b"}) {
					t.Errorf("got %q", got)
				}
			}},
		{"3.1 no request without TLS: endpoints of discovery", issuer.Options{}, nil, withSecret,
			func(t *testing.T, b *bench) {
				for _, name := range []string{"device_authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"} {
					b.is.Set(func(bh *issuer.Behaviour) { bh.DiscoveryFields = map[string]any{name: "http://issuer.test/token"} })
					_, err := flow.New(t.Context(), b.config)
					b.see(err)
					var bad *flow.AnswerError
					if !errors.As(err, &bad) || !strings.Contains(err.Error(), "is not https") {
						t.Errorf("%s: got %v", name, err)
					}
				}
				wantNoSecretSent(t, b)
			}},
		{"3.1 no request without TLS: endpoints of the configuration", issuer.Options{}, nil,
			func(c *flow.Config) {
				withSecret(c)
				c.Endpoints = flow.Endpoints{DeviceAuthorization: "http://issuer.test/device/authorize", Token: "http://issuer.test/token", JWKS: "http://issuer.test/jwks"}
			},
			func(t *testing.T, b *bench) {
				_, _, err := b.tryLogin()
				if b.is.Count("device") != 0 {
					t.Error("a request was sent")
				}
				if err == nil {
					t.Error("no error")
				}
				wantNoSecretSent(t, b)
			}},
		{"3.1 no request without TLS: the issuer of the configuration", issuer.Options{Base: "http://issuer.test"}, nil, withSecret,
			func(t *testing.T, b *bench) {
				_, _, err := b.tryLogin()
				if b.is.Count("discovery") != 0 {
					t.Error("a request was sent")
				}
				if err == nil {
					t.Error("no error")
				}
				wantNoSecretSent(t, b)
			}},
		{"3.1 no request without TLS: redirects", issuer.Options{}, nil, withSecret,
			func(t *testing.T, b *bench) {
				for endpoint, to := range map[string]string{"device": "https://issuer.test/other", "discovery": "http://issuer.test/other"} {
					b.is.Fault(endpoint, -1, issuer.Answer(307, "", "", "Location", to))
					if _, _, err := b.tryLogin(); err == nil || b.is.Count("other") != 0 {
						t.Errorf("%s: %v, and %d requests went on", endpoint, err, b.is.Count("other"))
					}
				}
			}},
		{"3.1 one request for one login", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for _, code := range []string{"expired_token", "access_denied", "invalid_grant"} {
					b.is.Fault("poll", 1, issuer.Error(400, code, ""))
					before := b.is.Count("device")
					if _, _, err := b.login(); err == nil || b.is.Count("device") != before+1 {
						t.Errorf("%s: %v after %d requests", code, err, b.is.Count("device")-before)
					}
				}
			}},

		// Section 3.2, the device authorization response.
		{"3.2 device_code is required", issuer.Options{}, without("device_code"), nil, wantNoPrompt("device_code")},
		{"3.2 user_code is required", issuer.Options{}, without("user_code"), nil, wantNoPrompt("user_code")},
		{"3.2 verification_uri is required", issuer.Options{}, without("verification_uri"), nil, wantNoPrompt("verification_uri")},
		{"3.2 expires_in is required: five minutes where it is missing", issuer.Options{}, without("expires_in"), nil,
			func(t *testing.T, b *bench) {
				start := time.Now()
				if _, _, err := b.login(); !errors.Is(err, flow.ErrExpired) || time.Since(start) != 5*time.Minute {
					t.Errorf("got %v after %v", err, time.Since(start))
				}
			}},
		{"3.2 expires_in is required, but may come as text", issuer.Options{}, func(b *issuer.Behaviour) {
			b.DeviceFields = map[string]any{"expires_in": "20"}
		}, nil,
			func(t *testing.T, b *bench) {
				if _, _, err := b.login(); !errors.Is(err, flow.ErrExpired) {
					t.Errorf("got %v, want ErrExpired", err)
				}
				wantGaps(t, b, seconds(5, 5, 5))
			}},
		{"3.2 verification_uri_complete is optional", issuer.Options{}, func(b *issuer.Behaviour) { b.NoComplete, b.ApproveAfterPolls = true, 1 }, nil,
			func(t *testing.T, b *bench) {
				if auth, _, err := b.login(); err != nil || auth.VerificationURIComplete != "" {
					t.Errorf("got %v, %v", auth, err)
				}
			}},
		{"3.2 unknown fields are ignored", issuer.Options{}, func(b *issuer.Behaviour) {
			b.ApproveAfterPolls = 1
			b.DeviceFields = map[string]any{"message": "To sign in\x1b[31m, go on", "x": map[string]any{"user_code": "EVIL-EVIL"}, "qr": []int{1}, "USER-CODE": "EVIL"}
			b.TokenFields = map[string]any{"not_before_policy": 0, "session_state": []string{"x"}, "error_uri": "https://issuer.test/none"}
		}, nil,
			func(t *testing.T, b *bench) {
				auth, _, err := b.login()
				if err != nil || strings.Contains(fmt.Sprint(auth, auth.UserCode, auth.VerificationURI), "EVIL") || strings.Contains(b.seen.String(), "sign in") {
					t.Errorf("got %v, %v", auth, err)
				}
			}},
		{"3.2 no interval means 5 s, and the first poll waits for it", issuer.Options{}, func(b *issuer.Behaviour) { b.Interval, b.ApproveAfterPolls = 0, 3 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantGaps(t, b, seconds(5, 5, 5)) }},
		{"3.2 the interval is kept", issuer.Options{}, func(b *issuer.Behaviour) { b.Interval, b.ApproveAfterPolls = 7, 3 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantGaps(t, b, seconds(7, 7, 7)) }},
		{"3.2 an interval that is no number means 5 s", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for i, interval := range []any{"soon", 0, -1, true, []int{1}, map[string]any{"seconds": 1}} {
					b.is.Set(func(bh *issuer.Behaviour) {
						bh.DeviceFields, bh.ApproveAfterPolls = map[string]any{"interval": interval}, 2
					})
					start := time.Now()
					if b.mustLogin(); time.Since(start) != 10*time.Second || b.is.Count("poll") != 2*(i+1) {
						t.Errorf("%v: two polls in %v", interval, time.Since(start))
					}
				}
			}},

		// Section 3.3, what the person is shown.
		{"3.3 the user code is given as it came", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for _, code := range []string{"WDJB-MJHT", "wdjb-mjht", "wDjB mJhT", "019-450-730", "0O1lI", "A", "#7", "ÄÖÜ-ß", strings.Repeat("ABCD-", 20)} {
					b.is.Set(func(bh *issuer.Behaviour) { bh.DeviceFields = map[string]any{"user_code": code} })
					auth, err := b.new().Authorize(t.Context())
					if err != nil || auth.UserCode != code {
						t.Errorf("%q came as %v, %v", code, auth, err)
					}
				}
			}},
		{"3.3 the verification URI is given as it came", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for _, uri := range []string{"https://issuer.test/Device", "https://issuer.test/d?tenant=a&b=%2F#enter", "https://issuer.test:8443/", "https://issuer.test"} {
					b.is.Set(func(bh *issuer.Behaviour) { bh.DeviceFields = map[string]any{"verification_uri": uri} })
					auth, err := b.new().Authorize(t.Context())
					if err != nil || auth.VerificationURI != uri {
						t.Errorf("%q came as %v, %v", uri, auth, err)
					}
				}
			}},
		{"3.3 a verification URI that is not safe to open ends it", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for _, uri := range []string{"http://idp.example.com/device", "javascript:alert(1)", "file:///etc/passwd", "--help", "https://a\u202e.example", "https://good.example@evil.example/"} {
					b.is.Set(func(bh *issuer.Behaviour) { bh.DeviceFields = map[string]any{"verification_uri": uri} })
					auth, err := b.new().Authorize(t.Context())
					b.see(err)
					var bad *flow.AnswerError
					if !errors.As(err, &bad) || auth != nil {
						t.Errorf("%q: got %v, %v", uri, auth, err)
					}
				}
			}},
		{"3.3 the device code is in no printed form", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls, b.PKCE = 6, "required" }, nil,
			func(t *testing.T, b *bench) {
				// In answers too, which repeat it in any form that they like.
				b.is.Fault("poll", 1, func(w http.ResponseWriter, r *http.Request) bool {
					return issuer.Answer(502, "text/html", r.Form.Get("device_code")+r.Form.Get("code_verifier"))(w, r)
				})
				b.is.Fault("poll", 1, func(w http.ResponseWriter, r *http.Request) bool {
					return issuer.Error(503, r.Form.Get("device_code"), r.Form.Get("code_verifier")+url.QueryEscape(r.Form.Get("device_code")))(w, r)
				})
				auth, _, err := b.login()
				if err != nil {
					t.Fatal(err)
				}
				marshalled, err := json.Marshal(auth)
				if err != nil {
					t.Fatal(err)
				}
				b.seen.Write(marshalled)
				fmt.Fprintf(&b.seen, "%s %q %x %d %+v %#v", auth, auth, auth, auth, []any{auth}, map[string]any{"a": auth})
				wantUnseen(t, b, "device_code", "code_verifier")
			}},

		{"3.3 the device code is in no printed copy", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls, b.PKCE = 1, "required" }, nil,
			func(t *testing.T, b *bench) {
				auth, _, err := b.login()
				if err != nil {
					t.Fatal(err)
				}
				f := b.is.Requests("poll")[0].Form
				for _, printed := range []string{fmt.Sprintf("%v %+v %#v", *auth, *auth, *auth), fmt.Sprint(struct{ A flow.Authorization }{*auth})} {
					if strings.Contains(printed, f.Get("device_code")) || strings.Contains(printed, f.Get("code_verifier")) {
						t.Errorf("it shows in %s", printed)
					}
				}
			}},

		// Section 3.3.1, the complete link.
		{"3.3.1 the complete link comes beside the code", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 }, nil,
			func(t *testing.T, b *bench) {
				auth, _, err := b.login()
				if err != nil || !strings.Contains(auth.VerificationURIComplete, auth.UserCode) || auth.VerificationURI == "" {
					t.Errorf("got %v, %v", auth, err)
				}
			}},
		{"3.3.1 a complete link does not stand in for the code", issuer.Options{}, func(b *issuer.Behaviour) {
			b.DeviceFields = map[string]any{"user_code": nil, "verification_uri_complete": "https://issuer.test/device?user_code=WDJB-MJHT"}
		}, nil, wantNoPrompt("user_code")},
		{"3.3.1 a complete link that is not safe is left out", issuer.Options{}, func(b *issuer.Behaviour) {
			b.DeviceFields, b.ApproveAfterPolls = map[string]any{"verification_uri_complete": "file:///etc/passwd"}, 1
		}, nil,
			func(t *testing.T, b *bench) {
				if auth, _, err := b.login(); err != nil || auth.VerificationURIComplete != "" {
					t.Errorf("got %v, %v", auth, err)
				}
			}},

		// Section 3.4, the token request.
		{"3.4 grant_type, device_code and client_id", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 }, nil,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				r := b.is.Requests("poll")[0]
				f := r.Form
				if f.Get("grant_type") != "urn:ietf:params:oauth:grant-type:device_code" || f.Get("device_code") == "" || f.Get("client_id") != "kubectl" || len(f) != 3 {
					t.Errorf("got the fields %v", f)
				}
				if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
					t.Errorf("got %s %v", r.Method, r.Header)
				}
			}},
		{"3.4 the device code is sent as it came", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for _, code := range []string{"SENTINEL-a+b/c==&d=e%2F #ü", "SENTINEL-" + strings.Repeat("x", 4000)} {
					b.is.Set(func(bh *issuer.Behaviour) {
						bh.DeviceFields, bh.ApproveAfterPolls = map[string]any{"device_code": code}, 1
					})
					b.mustLogin()
					if polls := b.is.Requests("poll"); polls[len(polls)-1].Form.Get("device_code") != code {
						t.Error("it was changed on its way")
					}
				}
			}},
		{"3.4 client authentication with client_secret_basic at each poll", issuer.Options{}, authenticated("client_secret_basic"), withSecret,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				wantAuthentication(t, b, "poll", "client_secret_basic", 3)
			}},
		{"3.4 client authentication with client_secret_post at each poll", issuer.Options{}, authenticated("client_secret_post"), withSecret,
			func(t *testing.T, b *bench) { b.mustLogin(); wantAuthentication(t, b, "poll", "client_secret_post", 3) }},

		// Section 3.5, the token response.
		{"3.5 authorization_pending goes on at the interval", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 5 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantGaps(t, b, seconds(5, 5, 5, 5, 5)) }},
		{"3.5 slow_down adds 5 s for good", issuer.Options{}, func(b *issuer.Behaviour) { b.SlowDownOnPolls, b.ApproveAfterPolls = []int{2, 3}, 6 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantGaps(t, b, seconds(5, 5, 10, 15, 15, 15)) }},
		{"3.5 slow_down outlasts trouble on the network", issuer.Options{}, func(b *issuer.Behaviour) { b.SlowDownOnPolls, b.ApproveAfterPolls = []int{1}, 3 }, nil,
			func(t *testing.T, b *bench) {
				polls := 0
				b.is.Fault("poll", -1, func(w http.ResponseWriter, r *http.Request) bool {
					if polls++; polls == 2 {
						return issuer.Drop(w, r)
					}
					return false
				})
				b.mustLogin()
				wantGaps(t, b, seconds(5, 10, 20, 10))
			}},
		{"3.5 slow_down with any HTTP status", issuer.Options{}, func(b *issuer.Behaviour) {
			b.SlowDownOnPolls, b.ApproveAfterPolls, b.ErrorStatus = []int{1}, 3, map[string]int{"slow_down": 429}
		}, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantGaps(t, b, seconds(5, 10, 10)) }},
		{"3.5 a provider that insists on the interval never has to say slow_down", issuer.Options{}, func(b *issuer.Behaviour) { b.EnforceInterval, b.ApproveAfterPolls = true, 10 }, nil,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				wantGaps(t, b, seconds(5, 5, 5, 5, 5, 5, 5, 5, 5, 5))
			}},
		{"3.5 a slow answer does not bring the next poll closer", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 3 }, nil,
			func(t *testing.T, b *bench) {
				b.is.Fault("poll", -1, func(http.ResponseWriter, *http.Request) bool { time.Sleep(8 * time.Second); return false })
				b.mustLogin()
				// The interval counts from an answer to the next question.
				wantGaps(t, b, seconds(5, 13, 13))
			}},
		{"3.5 never two polls at once", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 4 }, nil,
			func(t *testing.T, b *bench) {
				var running, most atomic.Int32
				b.is.Fault("poll", -1, func(_ http.ResponseWriter, r *http.Request) bool {
					most.Store(max(most.Load(), running.Add(1)))
					defer running.Add(-1)
					select { // longer than the client's own timeout at the second one
					case <-r.Context().Done():
					case <-time.After(time.Duration(b.is.Count("poll")) * 20 * time.Second):
					}
					return false
				})
				b.config.HTTP.Timeout = 30 * time.Second
				_, _, err := b.login()
				if most.Load() != 1 || b.is.Count("poll") < 3 {
					t.Errorf("%d polls at once, of %d: %v", most.Load(), b.is.Count("poll"), err)
				}
			}},
		{"3.5 access_denied ends it", issuer.Options{}, func(b *issuer.Behaviour) { b.DenyAfterPolls = 2 }, nil,
			func(t *testing.T, b *bench) {
				if _, _, err := b.login(); !errors.Is(err, flow.ErrDenied) {
					t.Errorf("got %v, want ErrDenied", err)
				}
				wantGaps(t, b, seconds(5, 5))
			}},
		{"3.5 expired_token ends it", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				b.is.Fault("poll", 1, issuer.Error(400, "expired_token", ""))
				if _, _, err := b.login(); !errors.Is(err, flow.ErrExpired) {
					t.Errorf("got %v, want ErrExpired", err)
				}
				wantGaps(t, b, seconds(5))
			}},
		{"3.5 any other error ends it", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				for i, code := range []string{"invalid_client", "invalid_request", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "incorrect_device_code", "?"} {
					b.is.Fault("poll", 1, issuer.Error(400, code, "who?"))
					_, _, err := b.login()
					var refused *flow.ProviderError
					if !errors.As(err, &refused) || refused.Code != code || refused.Description != "who?" || b.is.Count("poll") != i+1 {
						t.Errorf("%s: got %v after %d polls", code, err, b.is.Count("poll")-i)
					}
				}
			}},
		{"3.5 no poll after the token", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 2 }, nil,
			func(t *testing.T, b *bench) {
				// Not even where the keys to verify it with are out of reach.
				b.is.Fault("jwks", 3, issuer.Drop)
				b.mustLogin()
				time.Sleep(time.Hour)
				wantGaps(t, b, seconds(5, 5))
			}},
		{"3.5 no poll after a token that is refused", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls, b.Signing = 2, "other-key" }, nil,
			func(t *testing.T, b *bench) {
				_, token, err := b.login()
				var refused *flow.VerificationError
				if !errors.As(err, &refused) || token != nil {
					t.Errorf("got %v, %v", token, err)
				}
				time.Sleep(time.Hour)
				wantGaps(t, b, seconds(5, 5))
			}},
		{"3.5 the code's lifetime is a hard end", issuer.Options{}, func(b *issuer.Behaviour) { b.CodeLifetime = 30 * time.Minute }, nil,
			func(t *testing.T, b *bench) {
				start := time.Now()
				if _, _, err := b.login(); !errors.Is(err, flow.ErrExpired) {
					t.Errorf("got %v, want ErrExpired", err)
				}
				if took := time.Since(start); took != 30*time.Minute {
					t.Errorf("it ended after %v", took)
				}
				if polls := b.is.Count("poll"); polls != 30*60/5-1 {
					t.Errorf("%d polls", polls)
				}
			}},
		{"3.5 a hanging answer does not outlive the code", issuer.Options{}, func(b *issuer.Behaviour) { b.CodeLifetime = time.Minute },
			func(c *flow.Config) { c.HTTP.Timeout = 0 },
			func(t *testing.T, b *bench) {
				b.is.Fault("poll", -1, issuer.Hang)
				b.is.Fault("jwks", -1, issuer.Hang)
				start := time.Now()
				if _, _, err := b.login(); !errors.Is(err, flow.ErrExpired) {
					t.Errorf("got %v, want ErrExpired", err)
				}
				if took := time.Since(start); took > time.Minute+time.Second {
					t.Errorf("it ended after %v", took)
				}
			}},
		{"3.5 back-off after a connection that fails, then the interval again", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 2 }, nil,
			func(t *testing.T, b *bench) {
				b.is.Fault("poll", 3, issuer.Drop)
				b.mustLogin()
				wantGaps(t, b, seconds(5, 10, 20, 40, 5))
			}},
		{"3.5 back-off after a connection that times out", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 2 },
			func(c *flow.Config) { c.HTTP.Timeout = 3 * time.Second },
			func(t *testing.T, b *bench) {
				b.is.Fault("poll", 3, issuer.Hang)
				b.mustLogin()
				// Each with the 3 s of the timeout before it.
				wantGaps(t, b, seconds(5, 13, 23, 43, 5))
			}},
		{"3.5 back-off where the interval is long", issuer.Options{}, func(b *issuer.Behaviour) {
			b.Interval, b.ApproveAfterPolls, b.CodeLifetime = 90, 2, time.Hour
		}, nil,
			func(t *testing.T, b *bench) {
				b.is.Fault("poll", 2, issuer.Drop)
				b.mustLogin()
				for i, gap := range b.gaps()[1:3] {
					if gap != 180*time.Second {
						t.Errorf("pause %d is %v, not twice the interval", i, gap)
					}
				}
			}},

		// Section 5, security.
		{"5.1 no user code is ever sent", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 3 }, nil,
			func(t *testing.T, b *bench) {
				auth, _, err := b.login()
				if err != nil {
					t.Fatal(err)
				}
				for _, endpoint := range []string{"discovery", "device", "token", "jwks", "revoke", "page", "other"} {
					for _, r := range b.is.Requests(endpoint) {
						if sent := fmt.Sprint(r.Path, r.Form, r.Header); strings.Contains(sent, auth.UserCode) || r.Form.Has("user_code") {
							t.Errorf("%s got %s", endpoint, sent)
						}
					}
				}
				if b.is.Count("page") != 0 {
					t.Error("the person's page was visited")
				}
			}},
		{"5.2 only the device code that was given is sent", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 3 }, nil,
			func(t *testing.T, b *bench) {
				for range 2 { // a second login takes nothing from the first
					before := b.is.Count("poll")
					b.mustLogin()
					codes := map[string]bool{}
					for _, r := range b.is.Requests("poll")[before:] {
						codes[r.Form.Get("device_code")] = true
					}
					if len(codes) != 1 || before > 0 && codes[b.is.Requests("poll")[0].Form.Get("device_code")] {
						t.Errorf("%d device codes were sent", len(codes))
					}
				}
			}},
		{"5.4 the login is that of whoever asked for it", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 }, nil,
			func(t *testing.T, b *bench) {
				// What a stranger approves with their own code is not picked up.
				mine, err := b.new().Authorize(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls, bh.CodeLifetime = 0, time.Minute })
				other, err := b.client.Authorize(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := b.is.Approve(other.UserCode); err != nil {
					t.Fatal(err)
				}
				if err := b.is.Deny(mine.UserCode); err != nil {
					t.Fatal(err)
				}
				if _, err := b.client.Poll(t.Context(), mine, nil); !errors.Is(err, flow.ErrDenied) {
					t.Errorf("got %v, want ErrDenied", err)
				}
			}},
		{"5.5 what is shown is of no use without an approval", issuer.Options{}, func(b *issuer.Behaviour) { b.PKCE, b.DenyAfterPolls = "required", 2 }, nil,
			func(t *testing.T, b *bench) {
				if _, _, err := b.login(); !errors.Is(err, flow.ErrDenied) {
					t.Errorf("got %v, want ErrDenied", err)
				}
				// bubble searches what was seen for secrets; here is that they were there to be found.
				wantUnseen(t, b, "device_code", "code_verifier")
			}},
		{"5.6 a public client sends no secret", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 2 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantNoSecretSent(t, b) }},
		{"5.6 a secret goes to the provider alone", issuer.Options{}, authenticated("client_secret_basic"), withSecret,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				for _, endpoint := range []string{"discovery", "jwks"} {
					for _, r := range b.is.Requests(endpoint) {
						if r.Header.Get("Authorization") != "" || len(r.Form) != 0 {
							t.Errorf("%s got %v %v", endpoint, r.Header, r.Form)
						}
					}
				}
			}},

		// Section 6.1, the user code is for people.
		{"6.1 case and dashes of the user code are left to the provider", issuer.Options{}, nil, nil,
			func(t *testing.T, b *bench) {
				auth, err := b.new().Authorize(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := b.is.Approve(strings.ToLower(strings.ReplaceAll(auth.UserCode, "-", ""))); err != nil {
					t.Fatal(err)
				}
				if _, err := b.client.Poll(t.Context(), auth, nil); err != nil {
					t.Error(err)
				}
			}},
	}
}

// TestBeyondRFC8628 is what providers do beside the RFC, and what other
// specifications add to the device grant.
func TestBeyondRFC8628(t *testing.T) {
	run(t, []rule{
		{"errors count with any HTTP status: GitHub's 200", issuer.Options{}, func(b *issuer.Behaviour) {
			b.ErrorStatus, b.ApproveAfterPolls = map[string]int{"*": 200}, 3
		}, nil,
			func(t *testing.T, b *bench) { b.mustLogin(); wantGaps(t, b, seconds(5, 5, 5)) }},
		{"drafts' verification_url", issuer.Options{}, func(b *issuer.Behaviour) { b.LegacyVerificationURL, b.ApproveAfterPolls = true, 1 }, nil,
			func(t *testing.T, b *bench) {
				if auth, _, err := b.login(); err != nil || auth.VerificationURI == "" {
					t.Errorf("got %v, %v", auth, err)
				}
			}},
		{"Google: 428, 403, a secret, verification_url", issuer.Options{Shape: issuer.Google}, func(b *issuer.Behaviour) { b.SlowDownOnPolls, b.ApproveAfterPolls = []int{1}, 3 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin() }},
		{"Google: denied with 403", issuer.Options{Shape: issuer.Google}, func(b *issuer.Behaviour) { b.DenyAfterPolls = 1 }, nil,
			func(t *testing.T, b *bench) {
				if _, _, err := b.login(); !errors.Is(err, flow.ErrDenied) {
					t.Errorf("got %v, want ErrDenied", err)
				}
			}},
		{"dex", issuer.Options{Shape: issuer.Dex}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 2 }, nil,
			func(t *testing.T, b *bench) { b.mustLogin() }},
		{"PKCE where discovery lists it", issuer.Options{}, func(b *issuer.Behaviour) { b.PKCE, b.ApproveAfterPolls = "required", 2 }, nil,
			func(t *testing.T, b *bench) {
				b.mustLogin()
				if f := b.is.Requests("device")[0].Form; f.Get("code_challenge") == "" || f.Get("code_challenge_method") != "S256" || f.Has("code_verifier") {
					t.Errorf("device authorization: %v", f)
				}
				for _, r := range b.is.Requests("poll") {
					if r.Form.Get("code_verifier") == "" {
						t.Error("a poll without code_verifier")
					}
				}
			}},
		{"PKCE not where it is switched off", issuer.Options{}, func(b *issuer.Behaviour) { b.PKCE, b.ApproveAfterPolls = "S256", 1 },
			func(c *flow.Config) { c.PKCE = flow.No },
			func(t *testing.T, b *bench) {
				b.mustLogin()
				if b.is.Requests("device")[0].Form.Has("code_challenge") {
					t.Error("a challenge was sent")
				}
			}},
		{"offline_access never", issuer.Options{}, func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 },
			func(c *flow.Config) { c.OfflineAccess = flow.Never },
			func(t *testing.T, b *bench) {
				b.mustLogin()
				if got := b.is.Requests("device")[0].Form.Get("scope"); got != "openid" {
					t.Errorf("asked for %q", got)
				}
			}},
	})
}

// tryLogin is login for a configuration that New may refuse.
func (b *bench) tryLogin() (*flow.Authorization, *flow.Token, error) {
	if _, err := flow.New(b.Context(), b.config); err != nil {
		b.see(err)
		return nil, nil, err
	}
	return b.login()
}

func withSecret(c *flow.Config) {
	c.ClientSecret = func() (flow.Secret, error) { return flow.NewSecret(clientSecret), nil }
}

func authenticated(method string) func(*issuer.Behaviour) {
	return func(b *issuer.Behaviour) {
		b.ApproveAfterPolls, b.ClientSecret, b.AuthMethods = 3, clientSecret, []string{method}
	}
}

// wantAuthentication wants each request of an endpoint to be authenticated in
// the one way, and in no other beside it (RFC 6749 section 2.3).
func wantAuthentication(t *testing.T, b *bench, endpoint, method string, requests int) {
	t.Helper()
	if n := b.is.Count(endpoint); n != requests {
		t.Errorf("%d requests, want %d", n, requests)
	}
	for i, r := range b.is.Requests(endpoint) {
		inBody, inHeader := r.Form.Get("client_secret") == clientSecret, r.Header.Get("Authorization") != ""
		if inBody == inHeader || inBody != (method == "client_secret_post") || inHeader && r.Form.Has("client_secret") {
			t.Errorf("request %d: secret in the body: %v, Authorization: %v", i+1, inBody, inHeader)
		}
	}
}

func wantNoSecretSent(t *testing.T, b *bench) {
	t.Helper()
	for _, r := range slices.Concat(b.is.Requests("device"), b.is.Requests("token"), b.is.Requests("discovery"), b.is.Requests("jwks")) {
		if r.Form.Has("client_secret") || r.Header.Get("Authorization") != "" {
			t.Errorf("%s got a secret", r.Path)
		}
	}
}

func without(field string) func(*issuer.Behaviour) {
	return func(b *issuer.Behaviour) {
		b.DeviceFields = map[string]any{field: nil}
	}
}

// wantNoPrompt wants an answer without the field to end the login before
// anybody is asked and anything polled.
func wantNoPrompt(field string) func(*testing.T, *bench) {
	return func(t *testing.T, b *bench) {
		auth, _, err := b.login()
		var bad *flow.AnswerError
		if !errors.As(err, &bad) || !strings.Contains(bad.Reason, field) || auth != nil || b.is.Count("poll") != 0 {
			t.Errorf("got %v, %v after %d polls", auth, err, b.is.Count("poll"))
		}
	}
}

// wantUnseen wants what the polls sent in these fields to be in nothing that
// the test saw, plain, escaped or in hexadecimal.
func wantUnseen(t *testing.T, b *bench, fields ...string) {
	t.Helper()
	for _, field := range fields {
		secret := b.is.Requests("poll")[0].Form.Get(field)
		if secret == "" {
			t.Errorf("%s was not sent", field)
		}
		for _, form := range []string{secret, url.QueryEscape(secret), fmt.Sprintf("%x", secret)} {
			if strings.Contains(b.seen.String(), form) {
				t.Errorf("%s was seen in\n%s", field, &b.seen)
			}
		}
	}
}

// The table in rfc8628.go names each subtest of TestRFC8628 and nothing that is
// not there.
func TestRFC8628Table(t *testing.T) {
	source, err := os.ReadFile("rfc8628.go")
	if err != nil {
		t.Fatal(err)
	}
	subtests := map[string]bool{}
	for _, r := range rfc8628Rules() {
		if subtests[r.name] {
			t.Errorf("there are two subtests called %q", r.name)
		}
		subtests[r.name] = true
	}
	named := map[string]bool{}
	rows := regexp.MustCompile(`(?m)^//\t(\d[.\d]*) +\| (.*?) +\| (.+)$`).FindAllStringSubmatch(string(source), -1)
	for _, row := range rows {
		for test := range strings.SplitSeq(row[3], "; ") {
			script, isScript := strings.CutPrefix(test, "TestScripts/")
			switch {
			case isScript:
				if _, err := os.Stat(filepath.Join("..", "internal", "cli", "testdata", "script", script+".txtar")); err != nil {
					t.Errorf("%s: %v", row[1], err)
				}
			case !strings.HasPrefix(test, row[1]+" "):
				t.Errorf("%q is in the row of section %s", test, row[1])
			case !subtests[test]:
				t.Errorf("there is no subtest %q", test)
			case named[test]:
				t.Errorf("%q is named twice", test)
			}
			named[test] = true
		}
	}
	for name := range subtests {
		if !named[name] {
			t.Errorf("the table in rfc8628.go does not name %q", name)
		}
	}
}
