package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// elsewhere are flags of kubectl oidc-login (int128/kubelogin, docs/usage.md)
// that have another name here, or nothing to do, and names that people guess.
var elsewhere = map[string]string{
	"grant-type":                          "leave it out: this program does the device grant and nothing else",
	"oidc-redirect-url-hostname":          noRedirect,
	"oidc-redirect-url-authcode-keyboard": noRedirect,
	"oidc-redirect-url":                   noRedirect,
	"listen-address":                      noRedirect,
	"local-server-cert":                   noRedirect,
	"local-server-key":                    noRedirect,
	"open-url-after-authentication":       noRedirect,
	"username":                            noPassword,
	"password":                            noPassword,
	"oidc-use-pkce":                       "--oidc-pkce-method=S256",
	"oidc-request-header":                 "leave it out: no header is added to requests",
	"force-keyring":                       "--token-cache-storage=keyring",
	"no-keyring":                          "--token-cache-storage=disk, which is the default",
	"tls-renegotiation-once":              "leave it out: no provider that speaks TLS 1.3 needs it",
	"tls-renegotiation-freely":            "leave it out: no provider that speaks TLS 1.3 needs it",
	"v":                                   "-v, without a number",
	"issuer":                              "--oidc-issuer-url",
	"client-id":                           "--oidc-client-id",
	"client-secret":                       "--oidc-client-secret-file",
	"scope":                               "--oidc-extra-scope",
	"scopes":                              "--oidc-extra-scope",
	"kubeconfig":                          "KUBECONFIG=FILE in the environment",
	"cache-dir":                           "--token-cache-dir",
}

const (
	noRedirect = "leave it out: nothing is redirected to this machine, and no web server is started"
	noPassword = "leave it out: no password is ever asked for; a person approves in a browser"
)

// flagError says what is wrong with a flag, and which was probably meant.
func flagError(c *cobra.Command, err error) error {
	// Behind it stands the whole argument, which may hold a secret
	// (-oidc-client-secret=… with one dash).
	message, _, _ := strings.Cut(err.Error(), " in -")
	if c.Flags().ShorthandLookup("v") != nil && regexp.MustCompile(`^unknown shorthand flag: '[0-9]'$`).MatchString(message) {
		return &usageError{message: message, hint: "-v, without a number"}
	}
	unknown := regexp.MustCompile(`^unknown flag: --([a-z0-9-]+)$`).FindStringSubmatch(message)
	if unknown == nil {
		return &usageError{message: message}
	}
	if hint := elsewhere[unknown[1]]; hint != "" {
		return &usageError{message: message, hint: hint}
	}
	if near := nearest(unknown[1], c.Flags()); near != "" {
		return &usageError{message: message, hint: fmt.Sprintf("did you mean --%s? %s -h lists them all", near, c.CommandPath())}
	}
	return &usageError{message: message}
}

// nearest is the flag that is at most a third of its letters away, or "".
func nearest(name string, flags *pflag.FlagSet) (near string) {
	least := max(len(name)/3, 1) + 1
	flags.VisitAll(func(f *pflag.Flag) {
		if d := distance(name, f.Name); d < least {
			near, least = f.Name, d
		}
	})
	return near
}

// distance is Levenshtein's: letters put in, taken out or changed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
