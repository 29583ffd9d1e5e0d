package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

// policy bounds what a session may be. The zero policy bounds nothing.
type policy struct {
	source string // for people: a file, or the flags

	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`

	// What may be asked for; an absent list allows all, an empty one nothing.
	AllowedIssuers   *[]string `json:"allowedIssuers"`
	AllowedClientIDs *[]string `json:"allowedClientIDs"`
	AllowedScopes    *[]string `json:"allowedScopes"` // openid always is

	MaxTokenLifetime metav1.Duration `json:"maxTokenLifetime"`
	MaxSessionAge    metav1.Duration `json:"maxSessionAge"`
	// RefreshTokens is allowed (the default) or forbidden.
	RefreshTokens string `json:"refreshTokens"`
	// RequiredACR are the acr values of which a token must have one,
	// RequiredAMR the amr values of which it must have all (OpenID Connect Core
	// section 2, RFC 8176).
	RequiredACR []string `json:"requiredACR"`
	RequiredAMR []string `json:"requiredAMR"`
	// ExactAudience wants the client id as the one audience of a token.
	ExactAudience bool `json:"exactAudience"`
	// BroaderToken is what becomes of a token with more scopes than were asked
	// for, several audiences, or a life above maxTokenLifetime: warn (the
	// default) or refuse.
	BroaderToken  string `json:"broaderToken"`
	AuditRequired bool   `json:"auditRequired"`
}

// policyVersion is what a policy file says of itself.
const (
	policyVersion = "oidc-device/v1"
	policyKind    = "Policy"
)

// policyFiles are the administrator's, and the one that a variable names.
func policyFiles() []string {
	files := []string{systemPolicy()}
	if f := os.Getenv("OIDC_DEVICE_POLICY"); f != "" {
		files = append(files, f)
	}
	return files
}

// readPolicies gives the policies of the files that are there; only the first
// may be missing. A policy that cannot be read is no reason to go on without.
func readPolicies(files []string) ([]policy, error) {
	var policies []policy
	for i, file := range files {
		b, err := readPolicyFile(file)
		if errors.Is(err, fs.ErrNotExist) && i == 0 {
			continue
		}
		if err != nil {
			return nil, &usageError{message: fmt.Sprintf("the policy cannot be read: %v", err), hint: "ls -l " + shellQuote(file)}
		}
		p := policy{source: file}
		if err = p.parse(b); err != nil {
			return nil, &usageError{message: fmt.Sprintf("the policy %s makes no sense: %v", file, err), hint: "its form is in hack/docs/stewardship.md of this program's source"}
		}
		policies = append(policies, p)
	}
	return policies, nil
}

// readBounded reads a file whole, or not at all: half of a policy is another.
func readBounded(f *os.File) ([]byte, error) {
	const most = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(b) > most {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), most)
	}
	return b, err
}

func (p *policy) parse(b []byte) error {
	// Of several documents, the first alone would be read.
	begun := false
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(strings.TrimRight(line, " \r\n"), " ")
		if begun && line == "---" {
			return errors.New("it holds more than one document")
		}
		begun = begun || line != "" && line != "---" && !strings.HasPrefix(line, "#")
	}
	if err := yaml.UnmarshalStrict(b, p); err != nil {
		return err
	}
	// A list of which all elements are commented out would mean no bound at all.
	var fields map[string]any
	if err := yaml.Unmarshal(b, &fields); err != nil {
		return err
	}
	for name, value := range fields {
		if value == nil {
			return fmt.Errorf("%s has no value", name)
		}
	}
	return p.check()
}

func (p *policy) check() error {
	switch {
	case p.APIVersion != policyVersion || p.Kind != policyKind:
		return fmt.Errorf("it must begin with apiVersion: %s and kind: %s", policyVersion, policyKind)
	case p.RefreshTokens != "" && p.RefreshTokens != "allowed" && p.RefreshTokens != "forbidden":
		return fmt.Errorf("refreshTokens: %q is none of: allowed, forbidden", p.RefreshTokens)
	case p.BroaderToken != "" && p.BroaderToken != "warn" && p.BroaderToken != "refuse":
		return fmt.Errorf("broaderToken: %q is none of: warn, refuse", p.BroaderToken)
	case p.MaxTokenLifetime.Duration < 0 || p.MaxSessionAge.Duration < 0:
		return errors.New("a duration is negative")
	}
	return nil
}

// policyError refuses a session or a token.
type policyError struct{ source, reason string }

func (e *policyError) Error() string {
	return fmt.Sprintf("%s: %s forbids that", e.reason, e.source)
}

// allows refuses a session that must not be asked for. It needs no network.
func (p *policy) allows(o *options) error {
	refuse := func(format string, args ...any) error {
		return &policyError{p.source, fmt.Sprintf(format, args...)}
	}
	if p.AllowedIssuers != nil && !slices.Contains(*p.AllowedIssuers, o.issuer) {
		return refuse("the issuer is %s", o.issuer)
	}
	if p.AllowedIssuers != nil {
		// Else another provider could speak in an allowed one's name.
		for _, endpoint := range []string{o.endpoints.DeviceAuthorization, o.endpoints.Token, o.endpoints.Revocation, o.endpoints.JWKS} {
			if endpoint != "" && origin(endpoint) != origin(o.issuer) {
				return refuse("an endpoint that was given is at %s, not at the issuer's host", flow.Clean(origin(endpoint), 100))
			}
		}
	}
	if p.AllowedClientIDs != nil && !slices.Contains(*p.AllowedClientIDs, o.clientID) {
		return refuse("the client id is %s", o.clientID)
	}
	if p.AllowedScopes != nil {
		for _, scope := range o.key().Scopes {
			if scope != "openid" && !slices.Contains(*p.AllowedScopes, scope) {
				return refuse("the scope %s is asked for", scope)
			}
		}
	}
	return nil
}

func origin(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Scheme + "://" + u.Host
}

// accepts judges a token. What it warns of is not refused.
func (p *policy) accepts(o *options, e *cache.Entry) (warnings []string, err error) {
	var hard []string
	if len(p.RequiredACR) > 0 && !slices.Contains(p.RequiredACR, e.ACR) {
		hard = append(hard, fmt.Sprintf("the token's acr is %q, none of %s", e.ACR, strings.Join(p.RequiredACR, ", ")))
	}
	for _, method := range p.RequiredAMR {
		if !slices.Contains(e.AMR, method) {
			hard = append(hard, fmt.Sprintf("the token's amr is %q, without %s", e.AMR, method))
		}
	}
	if p.ExactAudience && !slices.Equal(e.Audience, []string{o.clientID}) {
		hard = append(hard, fmt.Sprintf("the token's audience is %q, not %s alone", e.Audience, o.clientID))
	}
	broad := broader(e, p.MaxTokenLifetime.Duration)
	if p.BroaderToken == "refuse" {
		hard, broad = append(hard, broad...), nil
	}
	if len(hard) > 0 {
		return nil, &policyError{p.source, strings.Join(hard, "; ")}
	}
	return broad, nil
}

// broader says in what a token is broader than it was asked for. Scopes that
// the provider does not tell count as those that were asked for (RFC 6749
// section 5.1). maxLife is 0 for any.
func broader(e *cache.Entry, maxLife time.Duration) (found []string) {
	var more []string
	for _, scope := range e.ScopesGranted {
		if !slices.Contains(e.ScopesRequested, scope) && !slices.Contains(e.Key.Scopes, scope) {
			more = append(more, scope)
		}
	}
	if len(more) > 0 {
		found = append(found, "scopes were granted that nobody asked for: "+strings.Join(more, " "))
	}
	if len(e.Audience) > 1 {
		found = append(found, "the token is for several audiences: "+strings.Join(e.Audience, ", "))
	}
	if life := e.TokenExpiresAt.Sub(e.TokenIssuedAt).Round(time.Second); maxLife > 0 && life > maxLife {
		found = append(found, fmt.Sprintf("the token lasts %s, longer than %s", life, maxLife))
	}
	return found
}

// applyPolicies finds the policies, takes their bounds over into the options
// where they are stricter, and refuses what they do not allow.
func (o *options) applyPolicies() error {
	policies, err := readPolicies(policyFiles())
	if err != nil {
		return err
	}
	flags := policy{
		source: "a flag of this command", RequiredACR: o.requiredACR, RequiredAMR: o.requiredAMR,
		BroaderToken: o.broaderToken, ExactAudience: o.exactAudience,
		MaxTokenLifetime: metav1.Duration{Duration: o.maxTokenLifetime},
	}
	o.policies = append(policies, flags)
	if slices.ContainsFunc(o.policies, func(p policy) bool { return p.BroaderToken == "refuse" }) {
		for i := range o.policies { // each bound counts with the strictest verdict
			o.policies[i].BroaderToken = "refuse"
		}
	}
	for _, p := range policies {
		if err := p.allows(o); err != nil {
			return err
		}
		if age := p.MaxSessionAge.Duration; age > 0 && (o.maxSessionAge == 0 || age < o.maxSessionAge) {
			o.maxSessionAge = age
		}
		o.noRefreshToken = o.noRefreshToken || p.RefreshTokens == "forbidden"
		o.auditRequired = o.auditRequired || p.AuditRequired
	}
	return nil
}

// offline is --oidc-offline-access as the policies leave it. The session's name
// goes by the flag, so that status and logout find it with and without them.
func (o *options) offline() string {
	if o.noRefreshToken || o.offlineAccess == flow.Auto && slices.ContainsFunc(o.policies, func(p policy) bool {
		return p.AllowedScopes != nil && !slices.Contains(*p.AllowedScopes, "offline_access")
	}) {
		return flow.Never
	}
	return o.offlineAccess
}

// accept judges a token by every policy: the strictest wins.
func (s *session) accept(e *cache.Entry, warn func(string, ...any)) error {
	var warnings []string
	for _, p := range s.policies {
		more, err := p.accepts(s.options, e)
		if err != nil {
			return err
		}
		warnings = append(warnings, more...)
	}
	slices.Sort(warnings)
	for _, w := range slices.Compact(warnings) {
		warn("%s", w)
	}
	return nil
}

// forbidden says whether a policy refuses a token that is kept: the policy may be
// newer than the token, and a login by other flags may have brought it.
func (s *session) forbidden(e *cache.Entry) bool { return s.accept(e, func(string, ...any) {}) != nil }

// unfit is what a policy has against a session that no renewal can mend: how
// the person was authenticated.
func (s *session) unfit(e *cache.Entry) error {
	for _, p := range s.policies {
		p = policy{source: p.source, RequiredACR: p.RequiredACR, RequiredAMR: p.RequiredAMR}
		if _, err := p.accepts(s.options, e); err != nil {
			return err
		}
	}
	return nil
}
