package execcred

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestParse(t *testing.T) {
	const v1req = `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":true,"cluster":{"server":"https://10.0.0.1:6443","config":{"a":1}}}}`
	tests := []struct {
		name, info string
		version    string
		wantErr    string // "version", "malformed" or empty
	}{
		{"absent", "", "client.authentication.k8s.io/v1", ""},
		{"v1", v1req, "client.authentication.k8s.io/v1", ""},
		{"v1beta1", strings.Replace(v1req, "/v1\"", "/v1beta1\"", 1), "client.authentication.k8s.io/v1beta1", ""},
		{"v1alpha1", strings.Replace(v1req, "/v1\"", "/v1alpha1\"", 1), "", "version"},
		{"another group", strings.Replace(v1req, "client.authentication.k8s.io/v1", "example.com/v1", 1), "", "version"},
		{"no version", `{"kind":"ExecCredential"}`, "", "version"},
		{"another kind", strings.Replace(v1req, "ExecCredential", "Pod", 1), "", "malformed"},
		{"not json", "nonsense", "", "malformed"},
		{"torn", v1req[:40], "", "malformed"},
		{"an array", "[]", "", "malformed"},
		{"null", "null", "", "malformed"},
		{"no time", `{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"expirationTimestamp":"QUOTED"}}`, "", "malformed"},
		{"huge", strings.Repeat(" ", maxRequest+1), "", "malformed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := Parse(tt.info)
			var version *VersionError
			switch {
			case tt.wantErr == "" && err != nil:
				t.Fatal(err)
			case tt.wantErr == "version" && !errors.As(err, &version):
				t.Fatalf("got %v, want a VersionError", err)
			case tt.wantErr == "malformed" && !errors.Is(err, ErrMalformed):
				t.Fatalf("got %v, want ErrMalformed", err)
			case tt.wantErr == "" && req.apiVersion != tt.version:
				t.Errorf("answers in %s, want %s", req.apiVersion, tt.version)
			}
			if err != nil && strings.Contains(err.Error(), "QUOTED") {
				t.Errorf("the request is quoted: %v", err)
			}
			if tt.wantErr == "version" && (!strings.Contains(err.Error(), v1+" and "+v1beta1)) {
				t.Errorf("%q does not name both versions", err)
			}
		})
	}
	req, err := Parse(v1req)
	if err != nil || !req.Interactive {
		t.Errorf("got %+v, %v", req, err)
	}
}

func TestRespond(t *testing.T) {
	expiry := time.Date(2026, 11, 23, 12, 0, 0, 999, time.FixedZone("", 3600))
	for _, version := range []string{v1, v1beta1} {
		req, err := Parse(fmt.Sprintf(`{"kind":"ExecCredential","apiVersion":%q,"spec":{"interactive":false}}`, version))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := req.Respond(&out, Credential{Token: NewSecret("t0ken"), Expiry: expiry}); err != nil {
			t.Fatal(err)
		}
		want := `{"kind":"ExecCredential","apiVersion":"` + version + `","spec":{"interactive":false},"status":{"expirationTimestamp":"2026-11-23T11:00:00Z","token":"t0ken"}}` + "\n"
		if out.String() != want {
			t.Errorf("got  %swant %s", &out, want)
		}
		out.Reset()
		if err := req.Respond(&out, Credential{Token: NewSecret("t0ken")}); err != nil || strings.Contains(out.String(), "expirationTimestamp") {
			t.Errorf("without expiry: %s, %v", &out, err)
		}
		out.Reset()
		if err := req.Respond(&out, Credential{}); err == nil || out.Len() != 0 {
			t.Errorf("an empty token was answered: %s", &out)
		}
	}
}

func TestCredentialDoesNotPrint(t *testing.T) {
	c := Credential{Token: NewSecret("SENTINEL"), Expiry: time.Now()}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c, "p", &c)
	marshalled, err := json.Marshal(c)
	if err == nil {
		t.Error("it was marshalled, without its token and without a word")
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %x %d %v", c, c, c, c, c, c, c, &c) + log.String() + string(marshalled)
	if strings.Contains(all, "SENTINEL") || strings.Contains(all, "53454e54") {
		t.Errorf("the token was printed: %s", all)
	}
}

// What is parsed can be answered, in the version that was asked for and with
// nothing of the request but what the protocol wants; what is not is refused
// in words that can be shown. The seeds are files in testdata/fuzz.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, info string) {
		const token = "t0ken-of-the-answer"
		req, err := Parse(info)
		if err != nil {
			var version *VersionError
			if req != nil || !errors.As(err, &version) && !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, %v", req, err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("not safe to show: %q", err)
			}
			return
		}
		var out bytes.Buffer
		if err := req.Respond(&out, Credential{Token: NewSecret(token), Expiry: time.Unix(1e9, 0)}); err != nil {
			t.Fatalf("parsed, but cannot answer: %v", err)
		}
		want := fmt.Sprintf(`{"kind":"ExecCredential","apiVersion":%q,"spec":{"interactive":%v},"status":{"expirationTimestamp":"2001-09-09T01:46:40Z","token":%q}}`+"\n", req.apiVersion, req.Interactive, token)
		if out.String() != want {
			t.Errorf("answered %swant %s", &out, want)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", req, req, req), token) {
			t.Error("the request knows the answer")
		}
		// The answer is itself a request of the same version.
		again, err := Parse(out.String())
		if err != nil || again.apiVersion != req.apiVersion || again.Interactive != req.Interactive {
			t.Errorf("answered %s: %v, %v", &out, again, err)
		}
	})
}
