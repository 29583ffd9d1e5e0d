package flow

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

// always is a provider that answers everything with one body.
type always []byte

func (a always) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(a)), Request: req,
	}, nil
}

// FuzzAnswers feeds one body to each parser of what a provider sends. None
// may panic, and none may make a token of it.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, `"x"`, `<html>`, `{"error":"slow_down"}`, `{"error":5,"error_description":[]}`,
		`{"issuer":"https://a.example","device_authorization_endpoint":"https://a.example/d","token_endpoint":"https://a.example/t","jwks_uri":"https://a.example/k"}`,
		`{"device_code":"d","user_code":"u","verification_uri":"https://a.example","expires_in":"1e9","interval":-1}`,
		`{"access_token":"a","id_token":"eyJhbGciOiJFUzI1NiJ9.e30.AA","expires_in":1e400,"scope":["a"],"token_type":null}`,
		`{"keys":[{"kty":"EC"},5,null]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		config := Config{Issuer: "https://a.example", ClientID: "c", HTTP: &http.Client{Transport: always(body)}}
		if c, err := New(context.Background(), config); err == nil {
			_, _ = c.Authorize(context.Background())
		}
		config.Endpoints = Endpoints{DeviceAuthorization: "https://a.example/d", Token: "https://a.example/t", JWKS: "https://a.example/k"}
		c, err := New(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Authorize(context.Background())
		if err == nil {
			if CheckURL(a.VerificationURI) != nil || a.UserCode != Clean(a.UserCode, 100) || a.interval <= 0 {
				t.Errorf("not safe to show: %q %q", a.VerificationURI, a.UserCode)
			}
			if life := time.Until(a.ExpiresAt); life > greatestLife || life < -time.Minute {
				t.Errorf("it lasts %v", life)
			}
		}
		var answer tokenAnswer
		if c.post(context.Background(), c.endpoints.Token, nil, &answer) == nil {
			if token, err := c.verify(context.Background(), &answer, time.Now()); err == nil {
				t.Errorf("made a token of %q: %v", body, token)
			}
		}
	})
}

// FuzzClaims feeds claims and headers to the verification: without a key that
// fits no token may come of it, and no refusal may carry what does not show.
func FuzzClaims(f *testing.F) {
	f.Add(`{"alg":"ES256"}`, `{"iss":"https://a.example","aud":"c","sub":"s","exp":9999999999}`)
	f.Add(`{"alg":"none"}`, `{"iss":"https://a.example","aud":["c"],"exp":"9999999999"}`)
	f.Add(`{"alg":"HS256","kid":"\u0000"}`, `{"iss":5,"aud":{},"exp":-1,"azp":[]}`)
	f.Add(`{"alg":"RS256","kid":"a","crit":["x"]}`, `[]`)
	f.Fuzz(func(t *testing.T, header, claims string) {
		encode := base64.RawURLEncoding.EncodeToString
		raw := encode([]byte(header)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
		c := &Client{
			config:    Config{Issuer: "https://a.example", ClientID: "c"},
			http:      &http.Client{Transport: always(`{"keys":[]}`)},
			endpoints: Endpoints{JWKS: "https://a.example/k"}, documents: map[string]document{},
		}
		token, err := c.verify(context.Background(), &tokenAnswer{IDToken: NewSecret(raw)}, time.Now())
		var refused *VerificationError
		if token != nil || !errors.As(err, &refused) {
			t.Fatalf("got %v, %v", token, err)
		}
		if strings.ContainsFunc(refused.Reason, unicode.IsControl) {
			t.Errorf("the refusal carries controls: %q", refused.Reason)
		}
	})
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "WDJB-MJHT", "a\x1b[31m\u202e\u200b\xff", "::error::x\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s, 20)
		if len([]rune(got)) > 21 || strings.ContainsFunc(got, unicode.IsControl) || Clean(got, 21) != got {
			t.Errorf("Clean(%q) = %q", s, got)
		}
	})
}
