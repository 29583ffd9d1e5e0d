package flow

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"
)

var (
	// ErrDenied: the person, or the provider for them, said no.
	ErrDenied = errors.New("the login was denied")
	// ErrExpired: nobody approved the login while its code lasted.
	ErrExpired = errors.New("the code expired before the login was approved")
	// ErrRefreshRefused: the refresh token is of no use any more.
	ErrRefreshRefused = errors.New("the provider does not accept the refresh token any more")
	// ErrNoIDToken: the provider sent none.
	ErrNoIDToken = errors.New("the provider sent no ID token")
	// ErrNoRevocation: the provider has no revocation endpoint.
	ErrNoRevocation = errors.New("the provider has no revocation endpoint")
)

// ProviderError is an error answer of the provider (RFC 6749 section 5.2).
type ProviderError struct {
	URL         string // the endpoint
	Status      int    // of HTTP
	Code        string // "invalid_client"
	Description string
	RetryAfter  time.Duration // zero if not said
}

func (e *ProviderError) Error() string {
	s := fmt.Sprintf("%s answers %s", e.URL, e.Code)
	if e.Description != "" {
		s += ": " + e.Description
	}
	return s
}

// AnswerError is an answer that is none: HTML of a proxy, a torn or an endless
// one, a status without an error code.
type AnswerError struct {
	URL        string
	Status     int
	Reason     string
	RetryAfter time.Duration
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("the answer of %s (HTTP status %d) %s", e.URL, e.Status, e.Reason)
}

// TransportError says that no answer came.
type TransportError struct {
	URL string
	Err error
}

// Error cleans its cause: a certificate or a proxy in between can put any text
// there, before anybody is trusted.
func (e *TransportError) Error() string {
	return fmt.Sprintf("cannot reach %s: %s", e.URL, Clean(e.Err.Error(), 400))
}
func (e *TransportError) Unwrap() error { return e.Err }

// VerificationError refuses a token.
type VerificationError struct{ Reason string }

func (e *VerificationError) Error() string { return "the token was refused: " + e.Reason }

// NoDiscoveryError: there is no discovery document at the issuer.
type NoDiscoveryError struct{ Issuer, URL string }

func (e *NoDiscoveryError) Error() string {
	return fmt.Sprintf("issuer %s has no discovery document at %s", e.Issuer, e.URL)
}

// IssuerError: the discovery document is of another issuer.
type IssuerError struct{ Want, Got string }

func (e *IssuerError) Error() string {
	return fmt.Sprintf("the provider at %s calls itself %q: the issuer must be the same to the letter", e.Want, e.Got)
}

// NoDeviceGrantError: the provider does not offer the device grant.
type NoDeviceGrantError struct{ Issuer string }

func (e *NoDeviceGrantError) Error() string {
	return fmt.Sprintf("issuer %s offers no device authorization grant: its discovery document names no device_authorization_endpoint", e.Issuer)
}

// Temporary says whether the same request may succeed a little later.
func Temporary(err error) bool {
	var transport *TransportError
	var answer *AnswerError
	var provider *ProviderError
	switch {
	case errors.As(err, &transport), errors.As(err, &answer):
		return true
	case errors.As(err, &provider):
		return provider.Status >= 500 || provider.Status == 429 ||
			provider.Code == "temporarily_unavailable" || provider.Code == "server_error"
	}
	return false
}

// retryAfter is how long the provider asked to be left alone.
func retryAfter(err error) time.Duration {
	var answer *AnswerError
	var provider *ProviderError
	switch {
	case errors.As(err, &answer):
		return answer.RetryAfter
	case errors.As(err, &provider):
		return provider.RetryAfter
	}
	return 0
}

// CheckURL refuses a URL to which no secret may go and which no person should
// be sent to: only https passes, and http on a loopback address.
func CheckURL(raw string) error {
	shown := Clean(raw, 100)
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || len(raw) > 2048:
		return fmt.Errorf("%q is not a URL of a server", shown)
	case u.User != nil:
		return fmt.Errorf("%q has a user name in it", shown)
	case strings.ContainsFunc(raw, func(r rune) bool { return !visible(r) || r == ' ' }):
		return fmt.Errorf("%q has characters that do not show", shown)
	case strings.Contains(raw, "##"):
		return fmt.Errorf("%q looks like a command to a CI system", shown)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%q is not https", shown)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Clean makes a text from elsewhere safe to show: it loses its control,
// bidirectional, zero-width and other characters that do not show, and is cut
// to a number of characters. Of several # in a row one stays: in a CI system's
// log ##[…] and ##vso[…] are commands, wherever they stand.
func Clean(s string, most int) string {
	var b strings.Builder
	n := 0
	last := rune(0)
	for _, r := range s {
		if !visible(r) || r == '#' && last == '#' {
			continue
		}
		last = r
		if n++; n > most {
			return b.String() + "…"
		}
		b.WriteRune(r)
	}
	return b.String()
}

// visible: unicode.IsPrint leaves out the control and format characters, which
// include the bidirectional ones; some letters and marks show nothing either.
func visible(r rune) bool {
	return r != unicode.ReplacementChar && unicode.IsPrint(r) &&
		!unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) &&
		r != '\u2800' // a Braille pattern without dots
}
