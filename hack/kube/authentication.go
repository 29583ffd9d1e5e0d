package kube

import (
	"fmt"
	"strings"
)

// Issuer is an OpenID provider that an API server trusts.
type Issuer struct {
	URL       string   // exactly as its tokens say; https
	Audiences []string // client ids; any of them will do
	CA        []byte   // PEM; none: the system's certificates
	// UsernameClaim is "sub" if empty, GroupsClaim is "groups", and Prefix,
	// which stands before both, is "oidc:".
	UsernameClaim, GroupsClaim, Prefix string
	// Rule, if set, is a CEL expression over claims that each token must meet.
	Rule string
}

// AuthenticationConfiguration is the text for kube-apiserver's
// --authentication-config. Anonymous requests reach the health paths only, so
// that a request without a good token is refused with a 401.
func AuthenticationConfiguration(issuers ...Issuer) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("apiVersion: apiserver.config.k8s.io/v1")
	line("kind: AuthenticationConfiguration")
	line("anonymous:")
	line("  enabled: true")
	line("  conditions:")
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		line("  - path: %s", path)
	}
	if len(issuers) > 0 {
		line("jwt:")
	}
	for _, issuer := range issuers {
		line("- issuer:")
		line("    url: %q", issuer.URL)
		line("    audiences:")
		for _, audience := range issuer.Audiences {
			line("    - %q", audience)
		}
		if len(issuer.Audiences) > 1 {
			line("    audienceMatchPolicy: MatchAny")
		}
		if len(issuer.CA) > 0 {
			line("    certificateAuthority: |")
			for l := range strings.Lines(strings.TrimSpace(string(issuer.CA))) {
				line("      %s", strings.TrimSpace(l))
			}
		}
		if issuer.Rule != "" {
			line("  claimValidationRules:")
			line("  - expression: %q", issuer.Rule)
			line("    message: the rule of this cluster is not met")
		}
		line("  claimMappings:")
		line("    username:")
		line("      claim: %q", or(issuer.UsernameClaim, "sub"))
		line("      prefix: %q", or(issuer.Prefix, "oidc:"))
		line("    groups:")
		line("      claim: %q", or(issuer.GroupsClaim, "groups"))
		line("      prefix: %q", or(issuer.Prefix, "oidc:"))
	}
	return b.String()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
