// Package execcred speaks the protocol of Kubernetes' client-go credential
// plugins: the ExecCredential of client.authentication.k8s.io, in and out.
//
// A client starts the plugin with a request in the environment variable
// KUBERNETES_EXEC_INFO and reads one JSON object from its standard output:
//
//	req, err := execcred.Parse(os.Getenv(execcred.EnvVar))
//	…
//	err = req.Respond(os.Stdout, execcred.Credential{Token: token, Expiry: expiry})
//
// A request answers itself, so that the apiVersion answered is always the one
// asked for: client-go treats any other as a hard error.
//
// The protocol: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
package execcred

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientauthv1 "k8s.io/client-go/pkg/apis/clientauthentication/v1"
	clientauthv1beta1 "k8s.io/client-go/pkg/apis/clientauthentication/v1beta1"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
)

// EnvVar is the environment variable that carries the request.
const EnvVar = "KUBERNETES_EXEC_INFO"

const kind = "ExecCredential"

// apiVersions that Parse takes, the preferred one first.
var (
	v1      = clientauthv1.SchemeGroupVersion.String()
	v1beta1 = clientauthv1beta1.SchemeGroupVersion.String()
)

// maxRequest bounds the request: spec.cluster may carry a bundle of
// certificates and a cluster's own configuration, hardly more than this.
const maxRequest = 4 << 20

// ErrMalformed is in the chain of every error for a request that is not an
// ExecCredential at all.
var ErrMalformed = errors.New(EnvVar + " is not an ExecCredential")

// VersionError says that the request is of an apiVersion that this package
// cannot answer.
type VersionError struct{ APIVersion string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s asks for apiVersion %q; this plugin answers %s and %s", EnvVar, e.APIVersion, v1, v1beta1)
}

// Request is what the client asked. The zero value is not useful; see Parse.
type Request struct {
	apiVersion string

	// Interactive is true if the plugin's standard input is the client's
	// terminal. False does not mean that nobody is there: a kubectl that
	// reads its own standard input says false too.
	Interactive bool
}

// Parse reads the value of KUBERNETES_EXEC_INFO. An empty value stands for a
// person who runs the plugin by hand, and is answered in v1.
//
// The error is a *VersionError, or has ErrMalformed in its chain. Of the
// request, which may hold a cluster's configuration, it quotes kind and
// apiVersion at most.
func Parse(info string) (*Request, error) {
	if info == "" {
		return &Request{apiVersion: v1}, nil
	}
	if len(info) > maxRequest {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrMalformed, len(info))
	}
	// The two versions have the same fields in a request, so that one type
	// reads both.
	var in clientauthv1.ExecCredential
	if err := json.Unmarshal([]byte(info), &in); err != nil {
		// %v: the cause is json's own, and must not become API. About a value
		// that does not suit, such as a time, it would quote it whole.
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("%w: %v", ErrMalformed, err)
		}
		return nil, fmt.Errorf("%w: a value in it is of the wrong form", ErrMalformed)
	}
	if in.Kind != kind {
		return nil, fmt.Errorf("%w: its kind is %q", ErrMalformed, in.Kind)
	}
	if in.APIVersion != v1 && in.APIVersion != v1beta1 {
		return nil, &VersionError{APIVersion: in.APIVersion}
	}
	return &Request{apiVersion: in.APIVersion, Interactive: in.Spec.Interactive}, nil
}

// Secret holds a token, and cannot be printed, logged, marshalled or compared
// by accident; see its methods.
type Secret = secret.String

// NewSecret makes a Secret of a text.
func NewSecret(s string) Secret { return secret.New(s) }

// Credential is an answer. It prints without its token.
type Credential struct {
	// Token is the bearer token for the API server.
	Token Secret
	// Expiry is when the client shall come back, in whole seconds on the
	// wire. The zero value leaves it out: the client then keeps the token
	// until it gets a 401 or ends.
	Expiry time.Time
}

// Format tells the expiry alone. The token could not be printed anyway.
func (c Credential) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "credential (token not shown), expires %s", c.Expiry.UTC().Format(time.RFC3339))
}

// LogValue keeps the token out of log/slog.
func (c Credential) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// Respond writes the ExecCredential, in the apiVersion that was asked for, as
// one line of JSON.
func (r *Request) Respond(w io.Writer, c Credential) error {
	if c.Token.Empty() {
		return errors.New("execcred: no token to respond with")
	}
	var expiry *metav1.Time
	if !c.Expiry.IsZero() {
		// metav1.Time cuts fractions off, so that a client comes back early
		// rather than late.
		t := metav1.NewTime(c.Expiry)
		expiry = &t
	}
	meta := metav1.TypeMeta{APIVersion: r.apiVersion, Kind: kind}
	var out any
	switch r.apiVersion {
	case v1:
		out = &clientauthv1.ExecCredential{
			TypeMeta: meta,
			Spec:     clientauthv1.ExecCredentialSpec{Interactive: r.Interactive},
			Status:   &clientauthv1.ExecCredentialStatus{Token: c.Token.Reveal(), ExpirationTimestamp: expiry},
		}
	case v1beta1:
		out = &clientauthv1beta1.ExecCredential{
			TypeMeta: meta,
			Spec:     clientauthv1beta1.ExecCredentialSpec{Interactive: r.Interactive},
			Status:   &clientauthv1beta1.ExecCredentialStatus{Token: c.Token.Reveal(), ExpirationTimestamp: expiry},
		}
	default:
		return &VersionError{APIVersion: r.apiVersion}
	}
	return json.NewEncoder(w).Encode(out)
}
