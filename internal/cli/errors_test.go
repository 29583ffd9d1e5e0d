package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/execcred"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// Each error that the program knows, what it tells people to do, and what
// scripts see.
func TestExplain(t *testing.T) {
	tests := []struct {
		err    error
		hint   string // part of it; empty: none
		status int
	}{
		{errors.New("something"), "", 1},
		{&cache.UntrustedError{Path: "p", Reason: "is a link", Mend: "rm 'p'"}, "rm 'p'", 1},
		{&usageError{message: "m"}, "get-token -h", 2},
		{&usageError{message: "m", hint: "h"}, "h", 2},
		{&execcred.VersionError{APIVersion: "x"}, "apiVersion: client.authentication.k8s.io/v1", 2},
		{execcred.ErrMalformed, "unset KUBERNETES_EXEC_INFO", 2},
		{errLoginNeeded, "", 3},
		{&coolDownError{until: time.Now()}, "", 3},
		{&hintedError{err: errLoginNeeded, hint: "kubectl oidc-device login"}, "oidc-device login", 3},
		{&joinedError{err: flow.ErrDenied, status: 4}, "", 4},
		{&joinedError{err: errors.New("failed"), status: 8}, "", 8},
		{flow.ErrDenied, "", 4},
		{flow.ErrExpired, "", 5},
		{errTimeout, "", 5},
		{&flow.TransportError{URL: "u", Err: errors.New("reset")}, "HTTPS_PROXY", 6},
		{&flow.TransportError{URL: "u", Err: x509.UnknownAuthorityError{}}, "--certificate-authority", 6},
		{&flow.TransportError{URL: "u", Err: x509.HostnameError{Certificate: &x509.Certificate{}}}, "another host", 6},
		{&flow.AnswerError{Status: 200}, "try again", 6},
		{&flow.AnswerError{Status: 502}, "try again", 6},
		{&flow.AnswerError{Status: 429}, "try again", 6},
		{&flow.ProviderError{Status: 503, Code: "x"}, "try again", 6},
		{&keptError{err: &flow.ProviderError{Status: 400, Code: "x"}}, "", 6},
		{&flow.AnswerError{Status: 404}, "check the endpoint", 7},
		{&flow.NoDeviceGrantError{}, "switch the device authorization grant on", 7},
		{&flow.NoDiscoveryError{URL: "u"}, "--oidc-device-authorization-endpoint", 7},
		{&flow.IssuerError{Got: "https://a/"}, "--oidc-issuer-url=https://a/", 7},
		{&flow.ProviderError{Status: 401, Code: "invalid_client"}, "--oidc-client-id", 7},
		{&flow.ProviderError{Status: 400, Code: "unauthorized_client"}, "for this client", 7},
		{&flow.ProviderError{Status: 400, Code: "invalid_scope"}, "--oidc-extra-scope", 7},
		{&flow.ProviderError{Status: 400, Code: "invalid_request"}, "--oidc-pkce-method", 7},
		{&flow.ProviderError{Status: 400, Code: "interaction_required"}, "interaction_required", 7},
		{&flow.VerificationError{Reason: "r"}, "clock", 8},
		{flow.ErrNoIDToken, "--oidc-use-access-token", 8},
		{&SignalError{Signal: os.Interrupt}, "", 130},
		{&SignalError{Signal: syscall.SIGTERM}, "", 143},
		{context.Canceled, "", 130},
	}
	command := newRoot([]string{"get-token"}, io.Discard, io.Discard).Commands()[0]
	for _, tt := range tests {
		for _, err := range []error{tt.err, fmt.Errorf("wrapped: %w", tt.err)} {
			message, hint, status := explain(err, command)
			if status != tt.status || !strings.Contains(hint, tt.hint) || tt.hint == "" && hint != "" || message == "" {
				t.Errorf("%T %v: message %q, hint %q, status %d; want %q and %d", err, err, message, hint, status, tt.hint, tt.status)
			}
		}
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"--a=b": "--a=b", "--a=b c": "'--a=b c'", "--a=$(x)": "'--a=$(x)'", "--a=it's": `'--a=it'\''s'`, "--a=`x`": "'--a=`x`'", "--a=x;y": "'--a=x;y'",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// A usage error that comes up in the middle of things has no command to name.
func TestExplainWithoutCommand(t *testing.T) {
	if message, hint, status := explain(&usageError{message: "the file is gone"}, nil); message != "the file is gone" || hint != "" || status != exitUsage {
		t.Errorf("%q, %q, %d", message, hint, status)
	}
}

// The hint's command holds no secret.
func TestCommandLine(t *testing.T) {
	o := &options{}
	o.addSessionFlags(&cobra.Command{})
	if err := o.given.Parse([]string{"--oidc-issuer-url=https://a", "--oidc-client-secret=SENTINEL", "--oidc-extra-scope=a,b", `--oidc-auth-request-extra-params="claims={""a"":1,""b"":2}"`, "--insecure-skip-tls-verify", "-v"}); err != nil {
		t.Fatal(err)
	}
	const want = `kubectl oidc-device login --insecure-skip-tls-verify '--oidc-auth-request-extra-params="claims={""a"":1,""b"":2}"' --oidc-extra-scope=a,b --oidc-issuer-url=https://a`
	if got := o.commandLine("login"); got != want {
		t.Errorf("got %s", got)
	}
}
