package flow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/issuer"
)

// bubble runs a test against an issuer without sockets, in time that passes by
// itself: a code of half an hour costs milliseconds. At its end no text that
// the test saw may hold a secret.
func bubble(t *testing.T, o issuer.Options, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		is := issuer.New(o)
		defer is.Close()
		b := &bench{T: t, is: is}
		client := is.Client()
		client.Timeout = 30 * time.Second
		b.config = flow.Config{Issuer: is.URL(), ClientID: "kubectl", HTTP: client, Log: func(format string, args ...any) { fmt.Fprintf(&b.seen, format+"\n", args...) }}
		if o.Shape == issuer.Google {
			b.config.ClientSecret = func() (flow.Secret, error) { return flow.NewSecret(issuer.GoogleSecret), nil }
		}
		test(t, b)
		for _, secret := range is.Sentinels() {
			if strings.Contains(b.seen.String(), secret) {
				t.Errorf("a secret was seen: %q in\n%s", secret, &b.seen)
			}
		}
	})
}

type bench struct {
	*testing.T
	is     *issuer.Issuer
	config flow.Config
	seen   bytes.Buffer // log lines, errors and printed values
	client *flow.Client
}

func (b *bench) new() *flow.Client {
	b.Helper()
	c, err := flow.New(b.Context(), b.config)
	b.see(err)
	if err != nil {
		b.Fatal(err)
	}
	b.client = c
	return c
}

func (b *bench) see(v any) { fmt.Fprintf(&b.seen, "%v %+v %#v\n", v, v, v) }

// login runs the grant to its end.
func (b *bench) login() (*flow.Authorization, *flow.Token, error) {
	b.Helper()
	auth, err := b.new().Authorize(b.Context())
	b.see(err)
	b.see(auth)
	if err != nil {
		return nil, nil, err
	}
	token, err := b.client.Poll(b.Context(), auth, func(err error) { b.see(err) })
	b.see(err)
	b.see(token)
	if err == nil && (token == nil || token.Bearer().Empty()) {
		b.Fatal("neither an error nor a token")
	}
	return auth, token, err
}

func (b *bench) mustLogin() *flow.Token {
	b.Helper()
	_, token, err := b.login()
	if err != nil {
		b.Fatal(err)
	}
	return token
}

// gaps are the times from the device authorization to the first poll, and from
// each poll to the next.
func (b *bench) gaps() []time.Duration {
	last := b.is.Requests("device")[0].Time
	var gaps []time.Duration
	for _, r := range b.is.Requests("poll") {
		gaps = append(gaps, r.Time.Sub(last))
		last = r.Time
	}
	return gaps
}

func seconds(n ...int) []time.Duration {
	out := make([]time.Duration, len(n))
	for i, s := range n {
		out[i] = time.Duration(s) * time.Second
	}
	return out
}

func wantGaps(t *testing.T, b *bench, want []time.Duration) {
	t.Helper()
	if got := b.gaps(); !slices.Equal(got, want) {
		t.Errorf("times between the polls: %v, want %v", got, want)
	}
}

const html = "<html><body>Please log in to the guest network</body></html>"

// faults are answers that are none.
var faults = map[string]issuer.Fault{
	"reset":              issuer.Drop,
	"hang":               issuer.Hang,
	"slow drip":          issuer.Drip,
	"proxy page, 200":    issuer.Answer(200, "text/html", html),
	"proxy page, 407":    issuer.Answer(407, "text/html", html),
	"redirect":           issuer.Answer(302, "text/html", "", "Location", "https://elsewhere.example/login"),
	"502":                issuer.Answer(502, "text/html", html),
	"503":                issuer.Answer(503, "text/plain", "", "Retry-After", "42"),
	"504, empty":         issuer.Answer(504, "", ""),
	"429":                issuer.Answer(429, "application/json", `{}`, "Retry-After", "30"),
	"429 with an error":  issuer.Error(429, "rate_limited", "too many"),
	"500 with an error":  issuer.Error(500, "server_error", "oops"),
	"truncated JSON":     issuer.Answer(200, "application/json", `{"access_token":"abc`),
	"JSON, but no token": issuer.Answer(200, "application/json", `"yes"`),
	"an array":           issuer.Answer(200, "application/json", `[]`),
	"endless":            issuer.Answer(200, "application/json", strings.Repeat(" ", 2<<20)),
	"nothing":            issuer.Answer(200, "application/json", ""),
}

// Every fault that ends before the code does is survived, and no poll comes
// sooner than one interval after the one before.
func TestPollOutlivesFaults(t *testing.T) {
	for name, fault := range faults {
		for _, endpoint := range []string{"poll", "jwks"} {
			t.Run(name+" at "+endpoint, func(t *testing.T) {
				bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
					b.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 3 })
					b.is.Fault(endpoint, 3, fault)
					b.mustLogin()
					for _, gap := range b.gaps() {
						if gap < 5*time.Second {
							t.Errorf("polled after %v", gap)
						}
					}
				})
			})
		}
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(b *issuer.Behaviour) { b.ApproveAfterPolls = 1 })
		b.is.Fault("poll", 1, issuer.Answer(503, "", "", "Retry-After", "42"))
		b.mustLogin()
		wantGaps(t, b, seconds(5, 42))
	})
}

func TestInterruption(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		client := b.new()
		cause := errors.New("the user pressed Ctrl-C")
		for _, fault := range []issuer.Fault{nil, issuer.Hang} {
			ctx, cancel := context.WithCancelCause(t.Context())
			auth, err := client.Authorize(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if fault != nil {
				b.is.Fault("poll", -1, fault)
			}
			time.AfterFunc(12*time.Second, func() { cancel(cause) })
			start := time.Now()
			if _, err := client.Poll(ctx, auth, nil); !errors.Is(err, cause) {
				t.Errorf("got %v, want the cause", err)
			}
			if took := time.Since(start); took != 12*time.Second {
				t.Errorf("it ended after %v", took)
			}
		}
	})
}

// What an ID token can be wrong in: none of these may become a Token.
func TestVerification(t *testing.T) {
	tests := map[string]func(*issuer.Behaviour){
		"alg none":            func(b *issuer.Behaviour) { b.Signing = "none" },
		"HS256":               func(b *issuer.Behaviour) { b.Signing = "HS256" },
		"a foreign key":       func(b *issuer.Behaviour) { b.Signing = "other-key" },
		"another issuer":      func(b *issuer.Behaviour) { b.WrongIssuerInToken = "https://evil.example" },
		"another audience":    func(b *issuer.Behaviour) { b.Audience = []string{"other"} },
		"no audience":         func(b *issuer.Behaviour) { b.Audience = []string{} },
		"another azp":         func(b *issuer.Behaviour) { b.ExtraAudiences, b.Azp = []string{"other"}, "other" },
		"expired":             func(b *issuer.Behaviour) { b.IDTokenLifetime = -time.Minute },
		"no expiry":           func(b *issuer.Behaviour) { b.ExtraClaims = map[string]any{"exp": nil} },
		"not yet valid":       func(b *issuer.Behaviour) { b.ExtraClaims = map[string]any{"nbf": time.Now().Add(time.Hour).Unix()} },
		"no subject":          func(b *issuer.Behaviour) { b.ExtraClaims = map[string]any{"sub": nil} },
		"not a JWT":           func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"id_token": "abc"} },
		"two parts":           func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"id_token": "eyJhbGciOiJFUzI1NiJ9.e30"} },
		"empty parts":         func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"id_token": ".."} },
		"a line break within": func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"id_token": "eyJhbGciOiJFUzI1NiJ9\n.e30.AA"} },
	}
	for name, set := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1; set(bh) })
				_, token, err := b.login()
				var refused *flow.VerificationError
				if !errors.As(err, &refused) || token != nil {
					t.Errorf("got %v, %v, want a VerificationError", token, err)
				}
			})
		})
	}
	good := map[string]func(*issuer.Behaviour){
		"several audiences, azp is us": func(b *issuer.Behaviour) { b.ExtraAudiences = []string{"project"} },
		"no key id":                    func(b *issuer.Behaviour) { b.Signing = "no-kid" },
		"a wrong access token beside": func(b *issuer.Behaviour) {
			b.TokenFields = map[string]any{"access_token": nil, "token_type": nil, "expires_in": nil}
		},
	}
	for name, set := range good {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1; set(bh) })
				b.mustLogin()
			})
		})
	}
	for _, alg := range []string{"ES384", "RS256", "PS256"} {
		t.Run(alg, func(t *testing.T) {
			bubble(t, issuer.Options{Algorithm: alg}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
				b.mustLogin()
			})
		})
	}
}

func TestNoIDToken(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls, bh.NoIDToken = 1, true })
		if _, _, err := b.login(); !errors.Is(err, flow.ErrNoIDToken) {
			t.Errorf("got %v, want ErrNoIDToken", err)
		}
	})
}

func TestToken(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) {
			bh.ApproveAfterPolls, bh.IDTokenLifetime, bh.ScopesGranted = 1, 7*time.Minute, "openid groups"
			bh.User = issuer.User{Subject: "42", Username: "jane\u202e\x1b[31m"}
		})
		token := b.mustLogin()
		if token.Subject != "42" || token.Name != "jane[31m" || !slices.Equal(token.Audience, []string{"kubectl"}) ||
			!slices.Equal(token.Scopes, []string{"openid", "groups"}) || token.RefreshToken().Empty() {
			t.Errorf("got %v %q %v %v", token, token.Name, token.Audience, token.Scopes)
		}
		if life := token.ExpiresAt.Sub(token.IssuedAt); life > 7*time.Minute || life < 7*time.Minute-2*time.Second {
			t.Errorf("it lives for %v", life)
		}
		marshalled, err := json.Marshal(token)
		if err != nil {
			t.Fatal(err)
		}
		b.seen.Write(marshalled)
		slog.New(slog.NewTextHandler(&b.seen, nil)).Info("x", "token", token, "previous", flow.Previous{RefreshToken: token.RefreshToken()}, "client", b.client)
		fmt.Fprintf(&b.seen, "%q %s %d %+v", token, token, token, []any{token, flow.Previous{RefreshToken: token.RefreshToken()}})
	})
}

// The WorkOS shape has no discovery, no ID token, no token_type and no
// expires_in: the expiry comes from the access token.
func TestWorkOS(t *testing.T) {
	for _, withKeys := range []bool{false, true} {
		t.Run(fmt.Sprintf("keys=%v", withKeys), func(t *testing.T) {
			bubble(t, issuer.Options{Shape: issuer.WorkOS}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls, bh.AccessTokenLifetime = 2, 5*time.Minute })
				b.config.AccessToken = true
				b.config.Endpoints = flow.Endpoints{
					DeviceAuthorization: b.is.URL() + "/user_management/authorize/device",
					Token:               b.is.URL() + "/user_management/authenticate",
				}
				if withKeys {
					b.config.Endpoints.JWKS = b.is.URL() + "/sso/jwks/kubectl"
				}
				token := b.mustLogin()
				if n := b.is.Count("discovery") + b.is.Count("other"); n != 0 {
					t.Errorf("%d requests for discovery", n)
				}
				if life := token.ExpiresAt.Sub(token.IssuedAt); life > 5*time.Minute || life < 5*time.Minute-2*time.Second {
					t.Errorf("it lives for %v", life)
				}
				renewed, err := b.client.Refresh(t.Context(), flow.Previous{RefreshToken: token.RefreshToken(), Subject: token.Subject})
				if err != nil || renewed.RefreshToken().Equal(token.RefreshToken()) {
					t.Errorf("renewal: %v, %v", renewed, err)
				}
				b.is.Set(func(bh *issuer.Behaviour) { bh.WrongIssuerInToken = "https://evil.example" })
				if _, err = b.client.Refresh(t.Context(), flow.Previous{RefreshToken: renewed.RefreshToken()}); err == nil {
					t.Error("a token of another issuer passed")
				}
				b.see(err)
			})
		})
	}
}

func TestAccessToken(t *testing.T) {
	tests := []struct {
		name string
		set  func(*issuer.Behaviour)
		life time.Duration // 0: refused
	}{
		{"opaque, expires_in", func(b *issuer.Behaviour) { b.ExpiresIn = 120 }, 2 * time.Minute},
		{"opaque, expires_in as text", func(b *issuer.Behaviour) { b.ExpiresIn = "120" }, 2 * time.Minute},
		{"opaque, no expires_in", func(b *issuer.Behaviour) { b.ExpiresIn = issuer.Missing{} }, 5 * time.Minute},
		{"opaque, negative expires_in", func(b *issuer.Behaviour) { b.ExpiresIn = -1 }, 5 * time.Minute},
		{"JWT", func(b *issuer.Behaviour) {
			b.JWTAccessToken, b.AccessTokenLifetime, b.ExpiresIn = true, 3*time.Minute, 9999
		}, 3 * time.Minute},
		{"JWT, a foreign key", func(b *issuer.Behaviour) { b.JWTAccessToken, b.Signing = true, "other-key" }, 0},
		{"JWT, alg none", func(b *issuer.Behaviour) { b.JWTAccessToken, b.Signing = true, "none" }, 0},
		{"another type", func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"token_type": "DPoP"} }, 0},
		{"bearer in small letters", func(b *issuer.Behaviour) { b.ExpiresIn, b.TokenFields = 60, map[string]any{"token_type": "bearer"} }, time.Minute},
		{"none", func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"access_token": nil} }, 0},
		{"a line break within", func(b *issuer.Behaviour) { b.TokenFields = map[string]any{"access_token": "a\r\nX-Evil: 1"} }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.config.AccessToken = true
				b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1; tt.set(bh) })
				_, token, err := b.login()
				var refused *flow.VerificationError
				switch {
				case tt.life == 0 && !errors.As(err, &refused):
					t.Errorf("got %v, %v, want a VerificationError", token, err)
				case tt.life != 0 && err != nil:
					t.Error(err)
				case tt.life != 0:
					if life := token.ExpiresAt.Sub(token.IssuedAt).Round(time.Second); life != tt.life {
						t.Errorf("it lives for %v, want %v", life, tt.life)
					}
				}
			})
		})
	}
}

func TestRefresh(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
		token := b.mustLogin()
		previous := func() flow.Previous {
			return flow.Previous{RefreshToken: token.RefreshToken(), Subject: token.Subject, Audience: token.Audience}
		}
		refresh := func() (*flow.Token, error) {
			renewed, err := b.client.Refresh(t.Context(), previous())
			b.see(err)
			b.see(renewed)
			return renewed, err
		}
		renew := func() {
			t.Helper()
			renewed, err := refresh()
			if err != nil {
				t.Fatal(err)
			}
			token = renewed
		}

		old := token
		renew()
		if token.RefreshToken().Equal(old.RefreshToken()) || token.Bearer().Equal(old.Bearer()) {
			t.Error("nothing was rotated")
		}
		b.is.Set(func(bh *issuer.Behaviour) { bh.RotateRefresh = false })
		old = token
		renew()
		if !token.RefreshToken().Equal(old.RefreshToken()) {
			t.Error("a refresh token that was not replaced got lost")
		}

		// Trouble that passes.
		for _, fault := range []issuer.Fault{issuer.Drop, issuer.Answer(503, "", ""), issuer.Error(429, "slow", "")} {
			b.is.Fault("refresh", 2, fault)
			renew()
		}
		// Trouble that stays, and is no reason for a new login.
		for _, fault := range []issuer.Fault{issuer.Drop, issuer.Hang, issuer.Answer(503, "", "", "Retry-After", "600"), issuer.Answer(200, "text/html", "<html>")} {
			b.is.Fault("refresh", -1, fault)
			start := time.Now()
			if _, err := refresh(); !flow.Temporary(err) {
				t.Errorf("got %v, want what passes", err)
			}
			if took := time.Since(start); took > 95*time.Second {
				t.Errorf("it took %v", took)
			}
			b.is.Fault("refresh", 0, nil)
		}

		// The provider renews, but what it sends is not for us.
		var refused *flow.VerificationError
		b.is.Set(func(bh *issuer.Behaviour) { bh.ExtraClaims = map[string]any{"sub": "mallory"} })
		if renewed, err := refresh(); !errors.As(err, &refused) || renewed != nil {
			t.Errorf("another subject: %v, %v", renewed, err)
		}
		// Nor is it, if its audience is not that of the login.
		b.is.Set(func(bh *issuer.Behaviour) { bh.ExtraClaims = nil })
		elsewhere := previous()
		elsewhere.Audience = append(elsewhere.Audience, "api")
		if renewed, err := b.client.Refresh(t.Context(), elsewhere); !errors.As(err, &refused) || renewed != nil {
			t.Errorf("another audience: %v, %v", renewed, err)
		}
		b.is.Set(func(bh *issuer.Behaviour) { bh.ExtraClaims = nil; bh.NoIDTokenAtRefresh, bh.RotateRefresh = true, true })
		renewed, err := refresh()
		if !errors.Is(err, flow.ErrNoIDToken) || renewed == nil || renewed.RefreshToken().Equal(token.RefreshToken()) || !renewed.Bearer().Empty() {
			t.Errorf("no ID token: %v, %v", renewed, err)
		}
		token = renewed
		b.is.Set(func(bh *issuer.Behaviour) { bh.NoIDTokenAtRefresh = false })
		// What is not known of the session (ErrNoIDToken gave no subject) is not compared.
		renew()

		old = token
		renew()
		token = old // used up: a real provider takes it for theft
		if _, err := refresh(); !errors.Is(err, flow.ErrRefreshRefused) {
			t.Errorf("got %v, want ErrRefreshRefused", err)
		}
	})
}

// A provider that answers the renewal while its keys are out of reach: the
// rotated refresh token must not be lost with the answer.
func TestRefreshKeepsTheRotatedToken(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
		token := b.mustLogin()
		b.is.RotateKey(false)
		b.is.Fault("jwks", -1, issuer.Drop)
		renewed, err := b.client.Refresh(t.Context(), flow.Previous{RefreshToken: token.RefreshToken()})
		b.see(err)
		if !flow.Temporary(err) || renewed == nil || !slices.Contains(b.is.RefreshTokens(), renewed.RefreshToken().Reveal()) {
			t.Errorf("got %v, %v, want the live refresh token", renewed, err)
		}
	})
}

func TestDexRefusesWithInvalidRequest(t *testing.T) {
	bubble(t, issuer.Options{Shape: issuer.Dex}, func(t *testing.T, b *bench) {
		_, err := b.new().Refresh(t.Context(), flow.Previous{RefreshToken: flow.NewSecret("unknown")})
		if !errors.Is(err, flow.ErrRefreshRefused) {
			t.Errorf("got %v, want ErrRefreshRefused", err)
		}
	})
}

// memory is a cache of documents for tests.
type memory map[string]kept

type kept struct {
	body    []byte
	fetched time.Time
}

func (m memory) LoadDocument(name string) ([]byte, time.Time) { return m[name].body, m[name].fetched }
func (m memory) SaveDocument(name string, body []byte, fetched time.Time) error {
	m[name] = kept{body, fetched}
	return nil
}

// A renewal with fresh documents is one request; documents last an hour; an
// unknown key id fetches the keys again, once.
func TestDocuments(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.config.Documents = memory{}
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
		token := b.mustLogin()
		requests := func(renew bool) string {
			t.Helper()
			before := []int{b.is.Count("discovery"), b.is.Count("jwks"), b.is.Count("token")}
			client := b.new() // as another process would
			renewed, err := client.Refresh(t.Context(), flow.Previous{RefreshToken: token.RefreshToken()})
			b.see(err)
			if renew != (err == nil) {
				t.Fatalf("renewal: %v", err)
			}
			if err == nil {
				token = renewed
			}
			return fmt.Sprintf("%d discovery, %d jwks, %d token", b.is.Count("discovery")-before[0], b.is.Count("jwks")-before[1], b.is.Count("token")-before[2])
		}
		check := func(what, want string, renew bool) {
			t.Helper()
			if got := requests(renew); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		check("fresh", "0 discovery, 0 jwks, 1 token", true)
		time.Sleep(59 * time.Minute)
		check("59 minutes old", "0 discovery, 0 jwks, 1 token", true)
		time.Sleep(2 * time.Minute)
		check("61 minutes old", "1 discovery, 1 jwks, 1 token", true)
		b.is.RotateKey(true)
		check("a new key id", "0 discovery, 1 jwks, 1 token", true)
		check("the new key is kept", "0 discovery, 0 jwks, 1 token", true)
		b.is.Set(func(bh *issuer.Behaviour) { bh.Signing = "other-key" })
		check("a forged signature", "0 discovery, 1 jwks, 1 token", false)

		// What was fetched without verifying certificates is not for others.
		b.is.Set(func(bh *issuer.Behaviour) { bh.Signing = "" })
		b.config.Trust = "another trust"
		before := b.is.Count("discovery")
		b.new()
		if b.is.Count("discovery") != before+1 {
			t.Error("a document of another trust was used")
		}
	})
}

func TestDiscovery(t *testing.T) {
	as := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	tests := []struct {
		name    string
		options issuer.Options
		set     func(*issuer.Behaviour)
		fault   issuer.Fault
		want    func(error) bool // nil: it works
	}{
		{"behind a path", issuer.Options{Path: "/realms/test"}, nil, nil, nil},
		{"with a slash at the end", issuer.Options{Path: "/"}, nil, nil, nil},
		{"another issuer", issuer.Options{}, func(b *issuer.Behaviour) { b.WrongIssuerInDiscovery = "https://evil.example" }, nil, as(new(*flow.IssuerError))},
		{"a slash too many", issuer.Options{}, func(b *issuer.Behaviour) { b.WrongIssuerInDiscovery = "https://issuer.test/" }, nil, as(new(*flow.IssuerError))},
		{"none", issuer.Options{}, nil, issuer.Answer(404, "text/html", "no"), as(new(*flow.NoDiscoveryError))},
		{"no device grant", issuer.Options{}, func(b *issuer.Behaviour) { b.NoDeviceGrant = true }, nil, as(new(*flow.NoDeviceGrantError))},
		{"HTML", issuer.Options{}, nil, issuer.Answer(200, "text/html", "<html>"), as(new(*flow.AnswerError))},
		{"of wrong types", issuer.Options{}, nil, issuer.Answer(200, "application/json", `{"issuer":5}`), as(new(*flow.AnswerError))},
		{"oversized", issuer.Options{}, nil, issuer.Answer(200, "application/json", `"`+strings.Repeat("x", 2<<20)+`"`), as(new(*flow.AnswerError))},
		{"503", issuer.Options{}, nil, issuer.Answer(503, "", ""), flow.Temporary},
		{"a redirect", issuer.Options{}, nil, issuer.Answer(302, "", "", "Location", "http://elsewhere.example/"), as(new(*flow.AnswerError))},
		{"an endpoint that is not https", issuer.Options{}, func(b *issuer.Behaviour) {
			b.DiscoveryFields = map[string]any{"token_endpoint": "http://elsewhere.example/token"}
		}, nil, as(new(*flow.AnswerError))},
		{"no token endpoint", issuer.Options{}, func(b *issuer.Behaviour) { b.DiscoveryFields = map[string]any{"token_endpoint": nil} }, nil, as(new(*flow.AnswerError))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, tt.options, func(t *testing.T, b *bench) {
				if tt.set != nil {
					b.is.Set(tt.set)
				}
				if tt.fault != nil {
					b.is.Fault("discovery", -1, tt.fault)
				}
				client, err := flow.New(t.Context(), b.config)
				if err == nil {
					_, err = client.Authorize(t.Context())
				}
				b.see(err)
				if tt.want == nil && err != nil || tt.want != nil && !tt.want(err) {
					t.Errorf("got %T: %v", err, err)
				}
			})
		})
	}
}

func TestDeviceAuthorizationIsChecked(t *testing.T) {
	for name, fields := range map[string]map[string]any{
		"no device_code":         {"device_code": nil},
		"no user_code":           {"user_code": nil},
		"no verification_uri":    {"verification_uri": nil, "verification_uri_complete": nil},
		"a file":                 {"verification_uri": "file:///etc/passwd"},
		"a script":               {"verification_uri": "javascript:alert(1)"},
		"plain http":             {"verification_uri": "http://idp.example.com/device"},
		"an option":              {"verification_uri": "--help"},
		"a code without a face":  {"user_code": "\u200b\u202e\x1b"},
		"a code of a wrong type": {"user_code": 12345},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) { bh.DeviceFields = fields })
				auth, err := b.new().Authorize(t.Context())
				b.see(err)
				var bad *flow.AnswerError
				if !errors.As(err, &bad) || auth != nil {
					t.Errorf("got %v, %v", auth, err)
				}
			})
		})
	}
}

func TestClientAuthentication(t *testing.T) {
	const secret = "client-secret-SENTINEL:+/ü"
	for _, method := range []string{"client_secret_basic", "client_secret_post"} {
		t.Run(method, func(t *testing.T) {
			bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
				b.is.Set(func(bh *issuer.Behaviour) {
					bh.ApproveAfterPolls, bh.ClientSecret, bh.AuthMethods = 1, secret, []string{method}
				})
				b.config.ClientSecret = func() (flow.Secret, error) { return flow.NewSecret(secret), nil }
				token := b.mustLogin()
				if _, err := b.client.Refresh(t.Context(), flow.Previous{RefreshToken: token.RefreshToken()}); err != nil {
					t.Error(err)
				}
				if err := b.client.Revoke(t.Context(), flow.NewSecret(b.is.RefreshTokens()[0]), flow.HintRefreshToken); err != nil {
					t.Error(err)
				}
				for _, r := range b.is.Requests("token") {
					if inBody := r.Form.Has("client_secret"); inBody != (method == "client_secret_post") || inBody == (r.Header.Get("Authorization") != "") {
						t.Errorf("secret in the body: %v, Authorization: %v", inBody, r.Header.Get("Authorization") != "")
					}
				}
				b.config.ClientSecret = func() (flow.Secret, error) { return flow.NewSecret("wrong"), nil }
				_, _, err := b.login()
				var refused *flow.ProviderError
				if !errors.As(err, &refused) || refused.Code != "invalid_client" {
					t.Errorf("a wrong secret: %v", err)
				}
			})
		})
	}
}

func TestRevoke(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
		token := b.mustLogin()
		b.is.Fault("revoke", 1, issuer.Answer(503, "", "", "Retry-After", "2"))
		for range 2 { // the second time it is not known any more, which is fine
			if err := b.client.Revoke(t.Context(), token.RefreshToken(), flow.HintRefreshToken); err != nil {
				t.Fatal(err)
			}
		}
		if !b.is.Revoked(token.RefreshToken().Reveal()) {
			t.Error("it was not revoked")
		}
		if f := b.is.Requests("revoke")[0].Form; f.Get("token_type_hint") != "refresh_token" || f.Get("client_id") != "kubectl" {
			t.Errorf("got %v", f)
		}
		b.is.Fault("revoke", -1, issuer.Drop)
		if err := b.client.Revoke(t.Context(), token.RefreshToken(), flow.HintRefreshToken); !flow.Temporary(err) {
			t.Errorf("got %v, want what passes", err)
		}
		b.is.Set(func(bh *issuer.Behaviour) { bh.NoRevocation = true })
		if err := b.new().Revoke(t.Context(), flow.NewSecret("x"), flow.HintRefreshToken); !errors.Is(err, flow.ErrNoRevocation) {
			t.Errorf("got %v, want ErrNoRevocation", err)
		}
	})
}

// A POST carries secrets, and a redirect would carry them on.
func TestNoRedirectOfSecrets(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
			b.is.Fault("device", 1, issuer.Answer(status, "", "", "Location", b.is.URL()+"/token"))
			_, err := b.new().Authorize(t.Context())
			b.see(err)
			var bad *flow.AnswerError
			if !errors.As(err, &bad) || b.is.Count("token") != 0 {
				t.Errorf("%d: %v, and %d requests went on", status, err, b.is.Count("token"))
			}
		})
	}
}

// A provider that repeats what it was sent must not bring it into a message.
func TestEchoedSecretsAreRedacted(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		echo := func(w http.ResponseWriter, r *http.Request) bool {
			return issuer.Error(400, "invalid_scope", fmt.Sprintf("no such thing: %s%s", r.Form.Get("device_code"), r.Form.Get("refresh_token")))(w, r)
		}
		b.is.Fault("token", -1, echo)
		_, _, err := b.login()
		if err == nil || !strings.Contains(err.Error(), "[redacted]") {
			t.Errorf("got %v", err)
		}
		_, err = b.client.Refresh(t.Context(), flow.Previous{RefreshToken: flow.NewSecret("refresh-SENTINEL-x")})
		b.see(err)
		if err == nil || strings.Contains(b.seen.String(), "refresh-SENTINEL-x") {
			t.Errorf("got %v", err)
		}
	})
}

// An endpoint that is not there is not polled until the code ends, nor are keys
// that are not there.
func TestNoSuchEndpointEnds(t *testing.T) {
	for _, endpoint := range []string{"poll", "jwks"} {
		bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
			b.is.Set(func(bh *issuer.Behaviour) { bh.ApproveAfterPolls = 1 })
			b.is.Fault(endpoint, -1, issuer.Answer(404, "text/html", "<html>"))
			start := time.Now()
			_, _, err := b.login()
			var answer *flow.AnswerError
			if !errors.As(err, &answer) || answer.Status != 404 || time.Since(start) > 2*time.Minute {
				t.Errorf("%s: %v after %v", endpoint, err, time.Since(start))
			}
		})
	}
}

// By a clock that is behind the provider's, a token seems to last longer than
// it does.
func TestExpiryByASlowClock(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		now := time.Now()
		b.is.Set(func(bh *issuer.Behaviour) {
			bh.ApproveAfterPolls = 1
			bh.ExtraClaims = map[string]any{"iat": now.Add(10 * time.Minute).Unix(), "exp": now.Add(15 * time.Minute).Unix()}
		})
		token := b.mustLogin()
		if life := token.ExpiresAt.Sub(token.IssuedAt); life != 5*time.Minute {
			t.Errorf("it lives for %v, want 5m", life)
		}
	})
}

// A provider that echoes the Authorization header gets it redacted as well.
func TestEchoedAuthorizationIsRedacted(t *testing.T) {
	bubble(t, issuer.Options{}, func(t *testing.T, b *bench) {
		b.config.ClientSecret = func() (flow.Secret, error) { return flow.NewSecret("client-secret-SENTINEL:+/"), nil }
		b.is.Fault("device", -1, func(w http.ResponseWriter, r *http.Request) bool {
			return issuer.Error(400, "invalid_request", "got "+r.Header.Get("Authorization")+" and client-secret-SENTINEL%3A%2B%2F")(w, r)
		})
		if _, _, err := b.login(); err == nil || strings.Contains(err.Error(), "SENTINEL") || !strings.Contains(err.Error(), "Basic [redacted] and [redacted]") {
			t.Errorf("got %v", err)
		}
	})
}
