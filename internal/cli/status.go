package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

func newStatus() *cobra.Command {
	o := &options{}
	var output string
	var prune, dryRun bool
	c := &cobra.Command{
		Use:   "status [flags]",
		Short: "List the sessions and the logins that wait for a person; never a token",
		Long: `List the sessions of this user, in the cache and wherever the kubeconfigs keep
theirs, and the logins that wait for a person. No token is shown. Problems are
judged by the policy too: ` + systemPolicy() + `, and the file of
$OIDC_DEVICE_POLICY.`,
		Example: `  # which sessions are there, and what is wrong with them
  kubectl oidc-device status

  # the same for a program; see hack/docs/stewardship.md in its source
  kubectl oidc-device status -o json

  # revoke and delete what no kubeconfig names, and what is of no use any more
  kubectl oidc-device status --prune`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(c, &output); err != nil {
				return err
			}
			ui := newUI(c.ErrOrStderr(), o.verbose)
			inv, err := takeInventory(o.cacheDir)
			if err != nil {
				ui.warn("%s: what is named there is not known, so nothing counts as orphaned", oneLine(err))
			}
			if dryRun && !prune {
				return &usageError{message: "--dry-run is for --prune"}
			}
			if prune {
				return runPrune(interruptible(c.Context()), o, inv, dryRun, ui)
			}
			return inv.print(c.OutOrStdout(), output)
		},
	}
	f := c.Flags()
	o.given = f
	f.StringVarP(&output, "output", "o", "table", "table, wide, json or yaml")
	f.BoolVar(&prune, "prune", false, "revoke and delete the sessions that no kubeconfig names and those that have expired")
	f.BoolVar(&dryRun, "dry-run", false, "with --prune: only say what would be ended")
	f.StringVar(&o.cacheDir, "token-cache-dir", cache.DefaultDir(), "folder of the sessions, beside those that the kubeconfigs name")
	o.addAuditFlags(c)
	f.BoolVarP(&o.verbose, "verbose", "v", false, "say on stderr what is done, each request and its duration; holds no secret")
	return c
}

func (inv *inventory) print(out io.Writer, output string) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(inv)
	case "yaml":
		b, err := yaml.Marshal(inv)
		if err == nil {
			_, err = out.Write(b)
		}
		return err
	}
	return inv.table(out, output == "wide")
}

func (inv *inventory) table(out io.Writer, wide bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			// Names out of kubeconfigs and files can hold anything.
			if cells[i] = flow.Clean(c, 1000); c == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if len(inv.Sessions) == 0 && len(inv.Pending) == 0 {
		_, err := fmt.Fprintln(out, "No sessions.")
		return err
	}
	if len(inv.Sessions) > 0 {
		head := []string{"ISSUER", "CLIENT ID", "NAME", "TOKEN", "RENEWABLE", "CONTEXTS", "PROBLEMS"}
		if wide {
			head = append(head, "SUBJECT", "USERS", "APPROVED", "RENEWED", "KIND", "AUDIENCE", "SCOPES", "STORAGE", "SESSION", "PATH")
		}
		row(head...)
	}
	for _, s := range inv.Sessions {
		name := s.Name
		if name == "" {
			name = s.Subject
		}
		var problems []string
		for _, p := range s.Problems {
			problems = append(problems, p.Code)
		}
		cells := []string{host(s.Issuer), s.ClientID, name, left(s.TokenExpiresAt), s.renewable(), strings.Join(s.Contexts, ","), strings.Join(problems, ",")}
		if wide {
			cells = append(cells, s.Subject, strings.Join(s.KubeconfigUsers, ","), ago(s.ApprovedAt), ago(s.RenewedAt), s.TokenKind, strings.Join(s.Audience, ","), strings.Join(s.ScopesGranted, ","), s.Storage, s.ID[:12], s.Path)
		}
		row(cells...)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range inv.Pending {
		link := p.VerificationURI
		if p.VerificationURIComplete != "" {
			link = p.VerificationURIComplete
		}
		if _, err := fmt.Fprintf(out, "\nWaiting for a person (process %d, %s left): %s at %s\n    open %s\n    and go on only if it shows, or asks for, this code: %s\n",
			p.PID, time.Until(p.ExpiresAt).Round(time.Second), p.ClientID, flow.Clean(host(p.Issuer), 300), link, p.UserCode); err != nil {
			return err
		}
	}
	for _, s := range inv.Sessions {
		for _, p := range s.Problems {
			if p.Fix == "" {
				continue
			}
			fix := p.Fix
			if p.Code == problemUntrusted {
				fix = "if nobody else wrote it: " + fix
			}
			if _, err := fmt.Fprintf(out, "\n%s\n    %s\n", p.Message, fix); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *sessionState) renewable() string {
	switch {
	case !s.Renewable:
		return "no"
	case s.RenewableUntil != nil:
		return left(s.RenewableUntil)
	}
	return "yes"
}

func host(issuer string) string {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" {
		return issuer
	}
	return u.Host + strings.TrimSuffix(u.Path, "/")
}

// left and ago are times as kubectl writes them: 5m, 3h, 2d.
func left(t *time.Time) string {
	if t == nil {
		return ""
	}
	d := time.Until(*t)
	if d <= 0 {
		return "expired"
	}
	return short(d)
}

func ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return short(time.Since(*t)) + " ago"
}

func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", max(int(d.Seconds()), 0))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// runPrune ends the sessions that are of no use.
func runPrune(ctx context.Context, o *options, inv *inventory, dryRun bool, ui *ui) error {
	var chosen []sessionState
	for _, s := range inv.Sessions {
		// One that cannot be read is somebody's to look at.
		if s.entry != nil && hasProblem(s, problemOrphaned, problemExpired, problemTooOld) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		ui.say("there is nothing to prune")
		return nil
	}
	if dryRun {
		for _, s := range chosen {
			ui.say("would end the session of client %s at %s (%s)", s.ClientID, s.Issuer, s.Problems[0].Message)
		}
		return nil
	}
	return logoutEach(ctx, chosen, *o, false, ui)
}
