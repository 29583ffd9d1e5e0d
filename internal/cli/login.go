package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func newLogin() *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use:   "login --oidc-issuer-url=URL --oidc-client-id=ID [flags]",
		Short: "Log in anew, and say who you are and until when",
		Example: `  # sign in now, so that kubectl does not ask later
  kubectl oidc-device login --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl

  # with a provider whose certificate authority is your own
  kubectl oidc-device login --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl --certificate-authority=ca.pem`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.storage == "none" {
				return &usageError{message: "login keeps a session for later, and --token-cache-storage=none keeps nothing", hint: "use get-token"}
			}
			if o.prompt == "never" { // a variable is for get-token
				if o.given.Lookup("prompt").Annotations[byVariable] == nil {
					return &usageError{message: "--prompt=never contradicts login: leave it out"}
				}
				o.prompt = "auto"
			}
			if err := o.applyPolicies(); err != nil {
				return err
			}
			s := newSession(o, newUI(c.ErrOrStderr(), o.verbose))
			s.fresh = true
			entry, err := s.token(c.Context())
			if err != nil {
				return hintLogin(err, o)
			}
			host := o.issuer
			if u, err := url.Parse(o.issuer); err == nil {
				host = u.Host
			}
			renewal := "it is renewed silently"
			if entry.RefreshToken.Empty() {
				renewal = "the provider gave no refresh token: then you need a new login"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "Signed in to %s as %s. The token is good until %s; %s.\n",
				host, whoIs(entry), entry.TokenExpiresAt.Local().Format("2006-01-02 15:04:05 MST"), renewal)
			return err
		},
	}
	o.addSessionFlags(c)
	o.addTokenFlags(c)
	return c
}
