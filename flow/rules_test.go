package flow

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestClean(t *testing.T) {
	tests := []struct{ in, want string }{ // cut to 12 characters
		{"WDJB-MJHT", "WDJB-MJHT"},
		{"##vso[x]", "#vso[x]"},
		{"#\u200b#[x]", "#[x]"},
		{"Grüße, 世界 👋", "Grüße, 世界 👋"},
		{"a\x1b[31mred\x1b[0m", "a[31mred[0m"},
		{"a\r\n::error::b", "a::error::b"},
		{"a\u202egnp.exe", "agnp.exe"},                     // right-to-left override
		{"pay\u200bpal\u2060\ufeff", "paypal"},             // zero width
		{"a\u3164\u115f\u2800b", "ab"},                     // letters and a pattern that show nothing
		{"a\ufe0f\U000e0041b", "ab"},                       // variation selector, tag
		{"a\x00\x7f\u0085b\xffc", "abc"},                   // controls, broken UTF-8
		{"a\u2028b\u2029c", "abc"},                         // separators
		{strings.Repeat("x", 13), "xxxxxxxxxxxx…"},         // cut
		{strings.Repeat("é", 12), strings.Repeat("é", 12)}, // by characters, not bytes
		{strings.Repeat("\x1b", 50) + "end", "end"},        // what is stripped does not count
		{"\u009b31m", "31m"},                               // C1 control sequence introducer
		{"\U000f0000a", "a"},                               // private use
	}
	for _, tt := range tests {
		if got := Clean(tt.in, 12); got != tt.want {
			t.Errorf("Clean(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestCheckURL(t *testing.T) {
	good := []string{
		"https://idp.example.com", "https://idp.example.com:8443/a/b?c=d", "http://127.0.0.1:5556/dex",
		"http://localhost:1", "http://[::1]:1/x", "http://127.9.9.9",
	}
	bad := []string{
		"", "http://idp.example.com", "http://localhost.example.com", "file:///etc/passwd", "javascript:alert(1)",
		"-option", "--option=https://x", "idp.example.com", "https://", "ftp://127.0.0.1", "data:text/html,x",
		"https://good.example@evil.example/", "https://a.example/\x1b[31m", "https://a.example/ b", "https://a.example/\u202eb",
		"http://128.0.0.1", "https:a", "https://a.example/##vso[x]y", "ssh://127.0.0.1", "https://a.example/" + strings.Repeat("x", 3000),
	}
	for _, u := range good {
		if err := CheckURL(u); err != nil {
			t.Errorf("%q: %v", u, err)
		}
	}
	for _, u := range bad {
		if err := CheckURL(u); err == nil {
			t.Errorf("%q passed", u)
		} else if strings.ContainsAny(err.Error(), "\x1b\u202e") {
			t.Errorf("%q: the error carries it on", u)
		}
	}
}

func TestNumber(t *testing.T) {
	tests := map[string]time.Duration{
		`5`: 5 * time.Second, `"5"`: 5 * time.Second, `0.5`: 500 * time.Millisecond, `1e3`: 1000 * time.Second,
		`null`: 0, `"x"`: 0, `{}`: 0, `[5]`: 0, `true`: 0, `"NaN"`: 0, `""`: 0,
		`1e300`: 365 * 24 * time.Hour, `"Inf"`: 365 * 24 * time.Hour, `-3`: -3 * time.Second,
	}
	for in, want := range tests {
		var n number
		if err := json.Unmarshal([]byte(in), &n); err != nil || n.seconds() != want {
			t.Errorf("%s: %v, %v, want %v", in, n.seconds(), err, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	tests := map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "999999": time.Hour,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
	}
	for in, want := range tests {
		if got := parseRetryAfter(&http.Response{Header: http.Header{"Retry-After": {in}}}); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
	at := time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
	if got := parseRetryAfter(&http.Response{Header: http.Header{"Retry-After": {at}}}); got < 57*time.Second || got > time.Minute {
		t.Errorf("%q: %v", at, got)
	}
}

func TestTemporary(t *testing.T) {
	tests := []struct {
		err  error
		want bool
	}{
		{&TransportError{Err: errors.New("reset")}, true},
		{&AnswerError{Status: 502}, true},
		{&AnswerError{Status: 200}, true},
		{&ProviderError{Status: 503, Code: "x"}, true},
		{&ProviderError{Status: 429, Code: "x"}, true},
		{&ProviderError{Status: 400, Code: "temporarily_unavailable"}, true},
		{&ProviderError{Status: 400, Code: "invalid_grant"}, false},
		{&VerificationError{}, false},
		{ErrDenied, false},
		{ErrNoIDToken, false},
		{nil, false},
	}
	for _, tt := range tests {
		if got := Temporary(fmt.Errorf("wrapped: %w", tt.err)); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.err, got, tt.want)
		}
	}
}

func TestRedact(t *testing.T) {
	if got := redact("no device SEC\u200bRET here, nor a%2Fb", []string{"", "SECRET", "a/b"}, 100); got != "no device [redacted] here, nor [redacted]" {
		t.Errorf("got %q", got)
	}
}
