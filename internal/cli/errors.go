package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/execcred"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// Exit statuses.
const (
	exitFailure      = 1
	exitUsage        = 2
	exitLoginNeeded  = 3
	exitDenied       = 4
	exitExpired      = 5
	exitUnavailable  = 6
	exitRefused      = 7
	exitVerification = 8
	exitSignal       = 128 // and the signal's number
)

// SignalError is the cause of a context that a signal ended.
type SignalError struct{ Signal os.Signal }

func (e *SignalError) Error() string {
	if e.Signal == os.Interrupt {
		return "interrupted"
	}
	return fmt.Sprintf("ended by a signal (%v)", e.Signal)
}

// usageError is a wrong call or configuration; nothing was contacted.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

// hintedError is an error for which the command knows what to type next.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// explain turns an error into what a person reads and a script sees. It is the
// one place that does. command is nil where no hint is wanted.
func explain(err error, command *cobra.Command) (message, hint string, status int) {
	var (
		signal       *SignalError
		usage        *usageError
		version      *execcred.VersionError
		coolDown     *coolDownError
		untrusted    *cache.UntrustedError
		keyring      *cache.KeyringError
		noDiscovery  *flow.NoDiscoveryError
		issuer       *flow.IssuerError
		noGrant      *flow.NoDeviceGrantError
		verification *flow.VerificationError
		transport    *flow.TransportError
		provider     *flow.ProviderError
		answer       *flow.AnswerError
		unknownCA    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		certificate  x509.CertificateInvalidError
		kept         *keptError
		joined       *joinedError
		refused      *policyError
		stuck        *stuckError
		unrecorded   *trailError
		hinted       *hintedError
	)
	message = err.Error()
	if errors.As(err, &hinted) {
		hint = hinted.hint
	}
	// Sorted from the particular to the general.
	switch {
	case errors.As(err, &signal):
		status = exitSignal + 15
		if number, ok := signal.Signal.(syscall.Signal); ok {
			status = exitSignal + int(number)
		}
		return signal.Error(), "", status
	case errors.As(err, &usage):
		if hint = usage.hint; hint == "" && command != nil {
			hint = command.CommandPath() + " -h"
		}
		return message, hint, exitUsage
	case errors.As(err, &version):
		return message, "set apiVersion: client.authentication.k8s.io/v1 in the user's exec entry of your kubeconfig (kubectl config view)", exitUsage
	case errors.Is(err, execcred.ErrMalformed):
		return message, "to run it by hand: unset " + execcred.EnvVar, exitUsage
	case errors.As(err, &refused):
		return message, "ask whoever set that policy, or change the flags that it bounds", exitVerification
	case errors.As(err, &stuck):
		return message, fmt.Sprintf("let it go on (fg, kill -CONT %d) or end it: kill -9 %d", stuck.pid, stuck.pid), exitFailure
	case errors.As(err, &unrecorded):
		return message, "give another file: --audit-log=FILE; without --audit-required it goes on all the same", exitFailure
	case errors.As(err, &joined) && joined.status > 0:
		return message, hint, joined.status
	case errors.As(err, &kept):
		return message, hint, exitUnavailable
	case errors.As(err, &coolDown), errors.Is(err, errLoginNeeded):
		return message, hint, exitLoginNeeded
	case errors.Is(err, flow.ErrDenied):
		return message, hint, exitDenied
	case errors.Is(err, flow.ErrExpired), errors.Is(err, errTimeout):
		return message, hint, exitExpired
	case errors.As(err, &untrusted):
		return message, "if nobody else wrote it: " + untrusted.Mend, exitFailure
	case errors.As(err, &keyring):
		return message, keyringHint(keyring.Reason), exitFailure
	case errors.As(err, &noDiscovery):
		return message, fmt.Sprintf("check --oidc-issuer-url: curl %s", noDiscovery.URL) + "; for a provider without discovery give --oidc-device-authorization-endpoint, --oidc-token-endpoint and, unless it is --oidc-use-access-token, --oidc-jwks-uri", exitRefused
	case errors.As(err, &issuer):
		return message, "if that is the provider you mean: --oidc-issuer-url=" + shellQuote(issuer.Got), exitRefused
	case errors.As(err, &noGrant):
		return message, "switch the device authorization grant on at the provider, or give --oidc-device-authorization-endpoint", exitRefused
	case errors.As(err, &verification) && hint != "":
		return message, hint, exitVerification
	case errors.As(err, &verification):
		return message, "-v shows each request; check the client id and the issuer, and this machine's clock: date -u", exitVerification
	case errors.Is(err, flow.ErrNoIDToken):
		return message, "if your API server takes access tokens: --oidc-use-access-token", exitVerification
	case errors.As(err, &unknownCA):
		return message, "if the provider has a certificate authority of its own: --certificate-authority=FILE", exitUnavailable
	case errors.As(err, &certificate) && certificate.Reason == x509.Expired:
		return message, "if this machine's clock is right (date -u), the provider's certificate must be renewed", exitUnavailable
	case errors.As(err, &hostname):
		return message, "the certificate is of another host: check --oidc-issuer-url", exitUnavailable
	case errors.As(err, &provider) && !flow.Temporary(err):
		return message, providerHint(provider.Code), exitRefused
	case errors.As(err, &answer) && answer.Status >= 400 && answer.Status < 500 && answer.Status != 408 && answer.Status != 429:
		return message, "check the endpoint; a proxy may also have answered in its place: -v shows each request", exitRefused
	case errors.As(err, &transport):
		return message, "check the network and the proxy (HTTPS_PROXY, NO_PROXY); -v shows each request", exitUnavailable
	case flow.Temporary(err):
		return message, "try again later; -v shows each request", exitUnavailable
	case errors.Is(err, context.Canceled):
		return "interrupted", "", exitSignal + 2
	}
	return message, hint, exitFailure
}

// keyringHint gives a clear choice: the program takes none by itself.
func keyringHint(reason cache.KeyringReason) string {
	const disk = "--token-cache-storage=disk keeps tokens in a file that only you can read"
	switch reason {
	case cache.KeyringLocked:
		if runtime.GOOS == "darwin" {
			return "security unlock-keychain, then try again; or " + disk
		}
		return "unlock it (log in to the desktop, or open its password manager), then try again; or " + disk
	case cache.KeyringTimedOut:
		return "it may be asking in a window: answer there and try again; or " + disk
	case cache.KeyringAbsent:
		return disk + "; --token-cache-storage=none keeps none, and asks for a login each time"
	}
	return "try again; or " + disk
}

func providerHint(code string) string {
	switch code {
	case "invalid_client":
		return "check --oidc-client-id, and --oidc-client-secret-file if the provider gave you a secret"
	case "unauthorized_client", "unsupported_grant_type":
		return "switch the device authorization grant on for this client at the provider"
	case "invalid_scope":
		return "check --oidc-extra-scope; if the provider does not know offline_access: --oidc-offline-access=never"
	case "invalid_request":
		return "check --oidc-auth-request-extra-params and --oidc-pkce-method; -v shows each request"
	}
	return "ask those who run the provider what this means: " + strings.TrimSpace(code)
}
