package flow

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
)

// The seeds are files in testdata/fuzz, answers like those of real providers
// and some that no provider should send. Every test run tries them.

// What the fuzz targets send, and what must not come back in a message.
const (
	fuzzSecret   = "client-secret-SENTINEL:+/"
	fuzzDevice   = "devicecode-SENTINEL-0123456789"
	fuzzVerifier = "verifier-SENTINEL-0123456789"
	fuzzRefresh  = "refresh-SENTINEL-0123456789"
)

// same is a provider that gives one answer to every POST, and one document to
// every GET.
type same struct {
	status      int
	contentType string
	answer      []byte
	document    []byte
	posts       []time.Time
}

func (s *same) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req}
	body := s.document
	if req.Method != http.MethodGet {
		body = s.answer
		resp.StatusCode = s.status
		resp.Header.Set("Content-Type", s.contentType)
		s.posts = append(s.posts, time.Now())
	} else if req.Header.Get("Authorization") != "" {
		return nil, errors.New("a secret was sent for a public document")
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// answering is a provider at https://a.example with these answers.
func answering(status int, form bool, answer []byte) *same {
	// Any number is a status: those that net/http can give are 100 to 999.
	s := &same{status: 100 + int(uint(status-100)%900), contentType: "application/json", answer: answer, document: []byte(`{"keys":[]}`)}
	if form {
		s.contentType = "application/x-www-form-urlencoded"
	}
	return s
}

func (s *same) config() Config {
	return Config{
		Issuer: "https://a.example", ClientID: "c", HTTP: &http.Client{Transport: s},
		ClientSecret: func() (Secret, error) { return NewSecret(fuzzSecret), nil },
	}
}

// client knows its endpoints already.
func (s *same) client(t *testing.T, accessToken bool) *Client {
	config := s.config()
	config.AccessToken = accessToken
	config.Endpoints = Endpoints{DeviceAuthorization: "https://a.example/d", Token: "https://a.example/t", Revocation: "https://a.example/r"}
	if !accessToken {
		config.Endpoints.JWKS = "https://a.example/k"
	}
	c, err := New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A discovery document leads nowhere that is not safe and speaks for nobody
// else, and one that was kept says what a fresh one does.
func FuzzDiscovery(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, func(t *testing.T) {
			provider := answering(200, false, nil)
			provider.document = body
			config := provider.config()
			fresh, err := New(t.Context(), config)
			config.Documents = keptDocument(body)
			kept, kerr := New(t.Context(), config)
			if len(provider.posts) != 0 {
				t.Error("something was sent before the endpoints were known")
			}
			if (err == nil) != (kerr == nil) || err == nil && (fresh.endpoints != kept.endpoints || fresh.pkce != kept.pkce || fresh.secretInBody != kept.secretInBody || fresh.offline != kept.offline) {
				t.Errorf("fresh: %v, %v; kept: %v, %v", fresh, err, kept, kerr)
			}
			if err != nil {
				safeError(t, err, body)
				safeError(t, kerr, body)
				if fresh != nil {
					t.Error("an error and a client")
				}
				return
			}
			var doc struct{ Issuer string }
			if json.Unmarshal(body, &doc) != nil || doc.Issuer != config.Issuer {
				t.Errorf("the issuer is %q", doc.Issuer)
			}
			e := fresh.Endpoints()
			for _, endpoint := range []string{e.DeviceAuthorization, e.Token, e.Revocation, e.JWKS} {
				if endpoint != "" && CheckURL(endpoint) != nil || e.Token == "" {
					t.Errorf("not safe: %q", e)
				}
			}
			if s := fresh.Scopes(); s[0] != "openid" || len(s) > 2 {
				t.Errorf("asks for %q", s)
			}
		})
	})
}

type keptDocument []byte

func (k keptDocument) LoadDocument(string) ([]byte, time.Time)    { return k, time.Now() }
func (keptDocument) SaveDocument(string, []byte, time.Time) error { return nil }

// What comes of a device authorization answer can be shown, and lasts for a
// time that makes sense.
func FuzzDeviceAuthorization(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, func(t *testing.T) {
			a, err := answering(200, false, body).client(t, false).Authorize(t.Context())
			if err != nil {
				safeError(t, err, body)
				if a != nil {
					t.Error("an error and an authorization")
				}
				return
			}
			if a.UserCode == "" || a.UserCode != Clean(a.UserCode, 101) || strings.TrimSpace(a.VerificationURI) == "" {
				t.Errorf("not fit to be shown: %q at %q", a.UserCode, a.VerificationURI)
			}
			for _, link := range []string{a.VerificationURI, a.VerificationURIComplete} {
				if link != "" && (CheckURL(link) != nil || link != Clean(link, 3000)) {
					t.Errorf("not safe to open: %q", link)
				}
			}
			if life := time.Until(a.ExpiresAt); life < 0 || life > greatestLife {
				t.Errorf("it lasts %v", life)
			}
			if a.interval < leastInterval || a.interval > greatestLife {
				t.Errorf("the interval is %v", a.interval)
			}
			if a.deviceCode.Empty() {
				t.Error("there is no device code")
			}
			if shown := fmt.Sprintf("%v %+v %#v %s %q", a, a, a, a, a); marked(a.deviceCode.Reveal()) && !strings.Contains(a.UserCode, a.deviceCode.Reveal()) && strings.Contains(shown, a.deviceCode.Reveal()) {
				t.Errorf("it shows its device code: %s", shown)
			}
		})
	})
}

// Whatever the token endpoint answers, with whatever status, a login and a
// renewal end in time, poll no sooner than they may, and show no secret. No
// answer makes a Token that has to be verified: there are no keys.
func FuzzTokenAnswer(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte, status int, form bool) {
		for _, accessToken := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				provider := answering(status, form, body)
				c := provider.client(t, accessToken)

				const life, interval = time.Minute, 5 * time.Second
				start := time.Now()
				a := &Authorization{UserCode: "WDJB-MJHT", ExpiresAt: start.Add(life), interval: interval, end: start.Add(life), deviceCode: NewSecret(fuzzDevice), verifier: NewSecret(fuzzVerifier)}
				token, err := c.Poll(t.Context(), a, func(err error) {
					if err != nil { // nil: the trouble is over
						safeError(t, err, body, fuzzDevice, fuzzVerifier)
					}
				})
				safeToken(t, token, err, accessToken, body, fuzzDevice, fuzzVerifier)
				if took := time.Since(start); took > life {
					t.Errorf("the login took %v", took)
				}
				last := start
				for _, at := range provider.posts {
					if gap := at.Sub(last); gap < interval {
						t.Errorf("polled after %v", gap)
					}
					last = at
				}

				start = time.Now()
				renewed, err := c.Refresh(t.Context(), Previous{RefreshToken: NewSecret(fuzzRefresh), Subject: "1"})
				if err != nil && renewed != nil {
					if !renewed.Bearer().Empty() || renewed.RefreshToken().Empty() {
						t.Errorf("the renewal failed and brought %v", renewed)
					}
					renewed = nil
				}
				if renewed != nil && renewed.RefreshToken().Empty() {
					t.Error("the refresh token got lost")
				}
				safeToken(t, renewed, err, accessToken, body, fuzzRefresh)
				if took := time.Since(start); took > time.Minute {
					t.Errorf("the renewal took %v", took)
				}
				if err := c.Revoke(t.Context(), NewSecret(fuzzRefresh), HintRefreshToken); err != nil {
					safeError(t, err, body, fuzzRefresh)
				}
			})
		}
	})
}

// FuzzClaims feeds claims and headers to the verification: as an ID token
// without a key that fits, which never becomes a Token; as one that is rightly
// signed, which does only if it is for us; as an access token without keys.
func FuzzClaims(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		f.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	f.Fuzz(func(t *testing.T, header, claims string) {
		raw := encode([]byte(header)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
		c := answering(200, false, nil).client(t, false)
		token, err := c.verify(t.Context(), &tokenAnswer{IDToken: NewSecret(raw)}, time.Now())
		var refused *VerificationError
		if token != nil || !errors.As(err, &refused) {
			t.Fatalf("without a key: %v, %v", token, err)
		}
		safeError(t, err, nil)

		signed := encode([]byte(`{"alg":"ES256"}`)) + "." + encode([]byte(claims))
		sum := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signed += "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
		provider := answering(200, false, nil)
		provider.document = keys
		token, err = provider.client(t, false).verify(t.Context(), &tokenAnswer{IDToken: NewSecret(signed)}, time.Now())
		if err == nil {
			var is struct {
				Iss, Sub, Azp string
				Aud           list
				Exp           number // go-oidc takes text too
			}
			_ = json.Unmarshal([]byte(claims), &is) // a wrong type leaves the zero value, which the next line refuses
			if is.Iss != "https://a.example" || is.Sub == "" || !slices.Contains(is.Aud, "c") || is.Azp != "" && is.Azp != "c" ||
				float64(is.Exp) < float64(time.Now().Unix()) || float64(token.ExpiresAt.Unix()) > math.Ceil(float64(is.Exp)) {
				t.Errorf("%s became %v", claims, token)
			}
		}
		if token != nil || err != nil {
			safeToken(t, token, err, true, nil)
		}

		token, err = answering(200, false, nil).client(t, true).verify(t.Context(), &tokenAnswer{AccessToken: NewSecret(raw)}, time.Now())
		safeToken(t, token, err, true, nil)
	})
}

// What Clean lets through and what CheckURL does can be shown anywhere.
func FuzzClean(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = int(uint(most) % 400)
		got := Clean(s, most)
		switch {
		case !utf8.ValidString(got), strings.ContainsFunc(got, unsafe), strings.Contains(got, "##"):
			t.Errorf("Clean(%q) = %q is not safe", s, got)
		case utf8.RuneCountInString(got) > most+1:
			t.Errorf("Clean(%q, %d) = %q is too long", s, most, got)
		case Clean(got, most+1) != got:
			t.Errorf("Clean(%q) = %q, and that is cleaned again", s, got)
		case !within(strings.TrimSuffix(got, "…"), s):
			t.Errorf("Clean(%q) = %q has something new", s, got)
		}
		plain := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' || r == '#' {
				return -1
			}
			return r
		}, s)
		if len(plain) <= 400 && Clean(plain, 400) != plain {
			t.Errorf("Clean changes %q", plain)
		}

		if err := CheckURL(s); err != nil {
			safeError(t, err, nil)
		} else if s != Clean(s, 3000) || strings.Contains(s, " ") || !strings.HasPrefix(strings.ToLower(s), "http") {
			t.Errorf("CheckURL lets %q through", s)
		}
		if shown := redact(s+fuzzDevice+s, []string{fuzzDevice}, 400); strings.Contains(shown, fuzzDevice) {
			t.Errorf("redact leaves %q", shown)
		}
	})
}

// unsafe is a character that moves a cursor, hides, or turns a line around.
func unsafe(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp, unicode.Bidi_Control, unicode.Join_Control, unicode.Variation_Selector)
}

// within says whether all characters of part are in whole, in that order.
func within(part, whole string) bool {
	rest := []rune(whole)
	for _, r := range part {
		i := slices.Index(rest, r)
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	return true
}

// marked is a secret of the seeds, or made from one: any other may by chance be
// a piece of a message of ours.
func marked(secret string) bool {
	return strings.Contains(secret, "not-a-real") || strings.Contains(secret, "SENTINEL") || strings.HasPrefix(secret, "eyJ") && len(secret) > 40
}

// safeError wants an error that can be shown: no control characters, of a
// bounded length, nothing that was sent as a secret, no token of the answer.
func safeError(t *testing.T, err error, body []byte, sent ...string) {
	t.Helper()
	text := err.Error()
	if strings.ContainsFunc(text, unsafe) || !utf8.ValidString(text) || len(text) > 4000 {
		t.Errorf("not safe to show: %q", text)
	}
	printed := fmt.Sprintf("%s %+v %#v", text, err, err)
	for _, secret := range append(sent, fuzzSecret) {
		if strings.Contains(printed, secret) {
			t.Errorf("a secret that was sent is in %q", printed)
		}
	}
	var answer map[string]any
	_ = json.Unmarshal(body, &answer) // an answer that is none has no tokens
	for _, name := range []string{"access_token", "id_token", "refresh_token", "device_code"} {
		// One that is elsewhere in the answer too may be quoted from there.
		if secret, ok := answer[name].(string); ok && marked(secret) && bytes.Count(body, []byte(secret)) == 1 && strings.Contains(printed, secret) {
			t.Errorf("the %s is in %q", name, printed)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller sees a deadline that is not its own: %v", err)
	}
}

// safeToken wants either an error, safe to show, or a Token that may be handed
// out, where one may be made at all.
func safeToken(t *testing.T, token *Token, err error, may bool, body []byte, sent ...string) {
	t.Helper()
	if err != nil {
		if token != nil {
			t.Errorf("%v, and the error %v", token, err)
		}
		safeError(t, err, body, sent...)
		return
	}
	if !may || token == nil {
		t.Errorf("made %v of %q", token, body)
		return
	}
	if token.bearer.Empty() || strings.ContainsFunc(token.bearer.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		t.Errorf("no bearer token: %q", token.bearer)
	}
	// A JWT without iat may last as long as it likes.
	if life := token.ExpiresAt.Sub(token.IssuedAt); life <= 0 || life > 366*24*time.Hour && !isJWT(token.bearer.Reveal()) {
		t.Errorf("it lasts %v", life)
	}
	for _, text := range slices.Concat([]string{token.Subject, token.Name}, token.Audience, token.Scopes) {
		if text != Clean(text, 2001) {
			t.Errorf("not safe to show: %q", text)
		}
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q", token, token, token, token, token)
	for _, secret := range []string{token.bearer.Reveal(), token.refresh.Reveal()} {
		if marked(secret) && !strings.Contains(token.Subject, secret) && strings.Contains(printed, secret) {
			t.Errorf("it shows its secret: %s", printed)
		}
	}
}
