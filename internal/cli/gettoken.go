package cli

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/oidc-device/kubectl-oidc_device/execcred"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

func newGetToken() *cobra.Command {
	o := &options{}
	output := ""
	c := &cobra.Command{
		Use:   "get-token --oidc-issuer-url=URL --oidc-client-id=ID [flags]",
		Short: "Print a token, as an ExecCredential for kubectl or bare for a script",
		Long: `Print a token: the cached one, else one that is renewed, else, after a login that
a person approves on any device, a new one. A policy may bound what is asked for
and what is handed out: ` + systemPolicy() + `, and the file
of $OIDC_DEVICE_POLICY; the stricter wins. HTTPS_PROXY and NO_PROXY count.`,
		Example: `  # what kubectl runs, from the exec entry of a kubeconfig
  kubectl oidc-device get-token --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl

  # in a CI job: the link and the code go to the log, the token to a variable
  TOKEN=$(kubectl oidc-device get-token --output=token --oidc-issuer-url=https://idp.example.com --oidc-client-id=ci)`,
		RunE: func(c *cobra.Command, _ []string) error {
			return runGetToken(c.Context(), o, output, c)
		},
	}
	o.addGetTokenFlags(c, &output)
	return c
}

// addGetTokenFlags declares all that may stand in a kubeconfig.
func (o *options) addGetTokenFlags(c *cobra.Command, output *string) {
	o.addSessionFlags(c)
	o.addTokenFlags(c)
	c.Flags().BoolVar(&o.forceRefresh, "force-refresh", false, "renew the token now")
	c.Flags().StringVarP(output, "output", "o", "exec-credential", "exec-credential, or token for the bare token")
}

func runGetToken(ctx context.Context, o *options, output string, c *cobra.Command) error {
	info := os.Getenv(execcred.EnvVar)
	request, err := execcred.Parse(info)
	if err != nil {
		return err
	}
	if err := checkOutput(c, &output); err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := o.applyPolicies(); err != nil {
		return err
	}
	s := newSession(o, newUI(c.ErrOrStderr(), o.verbose))
	if info != "" {
		s.client = clientProcess
	}
	entry, err := s.token(ctx)
	if err != nil {
		return hintLogin(err, o)
	}
	s.maskIn(c.OutOrStdout(), entry)
	if output == "token" {
		_, err = io.WriteString(c.OutOrStdout(), entry.Token.Reveal()+"\n")
		return err
	}
	return request.Respond(c.OutOrStdout(), execcred.Credential{Token: entry.Token, Expiry: s.comeBack(entry)})
}

// hintLogin names the command to type after a login that did not happen.
func hintLogin(err error, o *options) error {
	for _, e := range []error{errLoginNeeded, errTimeout, flow.ErrDenied, flow.ErrExpired} {
		if errors.Is(err, e) {
			return &hintedError{err: err, hint: o.commandLine("login")}
		}
	}
	var verification *flow.VerificationError
	if errors.As(err, &verification) {
		return &hintedError{err: err, hint: "check the client id, the issuer and this machine's clock (date -u); to start over: " + o.commandLine("login")}
	}
	var coolDown *coolDownError
	if errors.As(err, &coolDown) {
		return &hintedError{err: err, hint: o.commandLine("login")}
	}
	return err
}
