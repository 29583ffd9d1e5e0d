package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

func newLogout() *cobra.Command {
	o := &options{}
	var all, local bool
	var contextName, userName string
	c := &cobra.Command{
		Use:   "logout (--oidc-issuer-url=URL --oidc-client-id=ID | --context=NAME | --user=NAME | --all) [flags]",
		Short: "Revoke a session at the provider, then delete it",
		Example: `  # end the session of the kubeconfig's context
  kubectl oidc-device logout --context=production

  # end the session that these flags of get-token name
  kubectl oidc-device logout --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl

  # end every session
  kubectl oidc-device logout --all

  # delete it here only: the provider is not called, and what it gave out stays valid
  kubectl oidc-device logout --local --context=production`,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := interruptible(c.Context())
			ui := newUI(c.ErrOrStderr(), o.verbose)
			named := 0
			for _, way := range []bool{all, contextName != "", userName != "", o.gave("oidc-issuer-url")} {
				if way {
					named++
				}
			}
			switch {
			case named > 1:
				return &usageError{message: "--all, --context, --user and --oidc-issuer-url contradict each other: give one"}
			case all:
				if err := o.only("all", append(reach[3:], "local", "token-cache-dir")...); err != nil {
					return err
				}
				return logoutAll(ctx, *o, local, ui)
			case contextName != "", userName != "":
				way := "context"
				if userName != "" {
					way = "user"
				}
				if err := o.only(way, append(reach, "local")...); err != nil {
					return err
				}
				ref, err := findRef(contextName, userName)
				if err != nil {
					return err
				}
				from := *ref.options
				from.overlay(o)
				s := newSession(&from, ui)
				s.id, s.contextName = ref.id, contextName
				return hintLogout(s.logout(ctx, local), o)
			}
			if err := o.check(); err != nil {
				return err
			}
			return hintLogout(newSession(o, ui).logout(ctx, local), o)
		},
	}
	o.addSessionFlags(c)
	o.addUnusedTokenFlags(c)
	c.Flags().BoolVar(&all, "all", false, "every session, in the cache and wherever the kubeconfigs keep theirs")
	c.Flags().StringVar(&contextName, "context", "", "the session of this context of the kubeconfig")
	c.Flags().StringVar(&userName, "user", "", "the session of this user of the kubeconfig")
	c.Flags().BoolVar(&local, "local", false, "delete without calling the provider")
	return c
}

// reach are the flags that say how a session is ended, not which. The first
// three are of one client.
var reach = []string{
	"oidc-client-secret", "oidc-client-secret-file", "oidc-revocation-endpoint",
	"certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify", "audit-log", "audit-required",
}

// findRef finds the user of a kubeconfig by its own name or by a context's.
func findRef(contextName, userName string) (*kubeconfigRef, error) {
	refs, err := kubeconfigRefs()
	for i, ref := range refs {
		if userName != "" && ref.user == userName || contextName != "" && slices.Contains(ref.contexts, contextName) {
			return &refs[i], nil
		}
	}
	if err != nil {
		return nil, &usageError{message: err.Error(), hint: "kubectl config view"}
	}
	what := "user " + userName
	if contextName != "" {
		what = "context " + contextName
	}
	return nil, &usageError{message: fmt.Sprintf("no %s of the kubeconfig has a session of this program", what), hint: "kubectl config get-contexts"}
}

func logoutAll(ctx context.Context, o options, local bool, ui *ui) error {
	inv, hidden := takeInventory(o.cacheDir)
	if len(inv.Sessions) == 0 {
		ui.say("there are no sessions in %s", o.cacheDir)
	}
	if err := logoutEach(ctx, inv.Sessions, o, local, ui); err != nil || hidden == nil {
		return err
	}
	return fmt.Errorf("there may be more sessions than were found: %s", oneLine(hidden))
}

// oneLine is for errors that were joined.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// logoutEach ends sessions of which only the record is known, and whatever a
// kubeconfig says. One that cannot be ended does not keep the others.
func logoutEach(ctx context.Context, sessions []sessionState, o options, local bool, ui *ui) error {
	var failed error
	for _, state := range sessions {
		if hasProblem(state, problemUntrusted) {
			ui.warn("%s", state.Problems[0].Message)
			if failed == nil {
				failed = errors.New("a session is not trusted, and was left as it is: kubectl oidc-device status")
			}
			continue
		}
		if state.aside {
			if err := endAside(state.Path, local, ui); err != nil {
				ui.warn("%v", err)
				failed = err
			}
			continue
		}
		s := newSession(state.optionsOf(o), ui)
		s.id = state.ID
		if err := s.logout(ctx, local); err != nil {
			ui.warn("%v", err)
			if kept := (*keptError)(nil); failed == nil || errors.As(err, &kept) {
				failed = err
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if failed != nil {
		return &hintedError{err: failed, hint: "try again; to delete one here only: kubectl oidc-device logout --local, with the --context or the flags that name it"}
	}
	return nil
}

// endAside is for a session that did not parse: nobody knows what to revoke.
func endAside(path string, local bool, ui *ui) error {
	if !local {
		return &keptError{fmt.Errorf("%s did not parse, so that it cannot be revoked; it was kept", path)}
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	ui.say("deleted %s", path)
	return nil
}

// keptError: the provider could not be told, so the session was kept.
type keptError struct{ err error }

func (e *keptError) Error() string { return e.err.Error() }
func (e *keptError) Unwrap() error { return e.err }

func hintLogout(err error, o *options) error {
	var kept *keptError
	if errors.As(err, &kept) {
		return &hintedError{err: err, hint: "try again, or delete it here only: " + o.commandLine("logout", "local") + " --local"}
	}
	return err
}

// logout revokes and deletes the session, under its lock: a renewal at the same
// moment would bring it back.
func (s *session) logout(ctx context.Context, local bool) error {
	if s.disk == nil { // with none there may be a session from before
		s.disk = cache.NewDisk(s.cacheDir)
		s.store, s.other = s.disk, cache.NewKeyring(s.disk)
		if s.auditLog != "none" {
			s.trail.path = s.auditLog
		}
	}
	name := fmt.Sprintf("the session of client %s at %s", s.clientID, s.issuer)
	if _, err := s.store.Load(s.id); errors.Is(err, cache.ErrNotFound) {
		// To be ended it need not be moved.
		s.store, s.other = s.other, s.store
		if _, err := s.store.Load(s.id); errors.Is(err, cache.ErrNotFound) {
			s.ui.say("there is nothing to end: %s is not in %s", name, s.cacheDir)
			return nil
		}
	}
	unlock, _, err := s.lock(ctx, func(*cache.Entry) bool { return false })
	if err != nil {
		return err
	}
	defer unlock()
	entry, err := s.store.Load(s.id)
	var corrupt *cache.CorruptError
	switch {
	case errors.Is(err, cache.ErrNotFound):
		return nil // somebody else was faster
	case errors.As(err, &corrupt) && local:
		if err := s.store.Delete(s.id); err != nil {
			return err
		}
		s.ui.say("deleted %s, which could not be read: if it held a token, that was not revoked", name)
		return nil
	case errors.As(err, &corrupt):
		return &keptError{fmt.Errorf("%w, so that the session cannot be revoked; it was kept", corrupt)}
	case err != nil:
		return err
	}
	// Of a policy, only its trail concerns an end; a policy that cannot be read
	// must not keep a session alive.
	if policies, err := readPolicies(policyFiles()); err == nil {
		for _, p := range policies {
			s.trail.required = s.trail.required || p.AuditRequired
		}
	}
	if err := s.trail.ready(); err != nil {
		return err
	}
	var revoked []string
	if !local {
		if revoked, err = s.revoke(ctx, entry); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return &keptError{err: fmt.Errorf("%s could not be revoked and was kept: %w", name, err)}
		}
	}
	for _, store := range []cache.Storage{s.store, s.other} { // both, where a move was interrupted
		if err := store.Delete(s.id); err != nil {
			return err
		}
	}
	if err := s.audit(sessionDeleted, entry, nil); err != nil {
		return err
	}
	s.note(func(n *cache.Notes) { n.Failure = nil })
	s.ui.say("deleted %s", name)
	if !slices.Contains(revoked, flow.HintRefreshToken) && !entry.RefreshToken.Empty() {
		until := "until the provider ends it"
		if !entry.RefreshExpiresAt.IsZero() {
			until = "until " + clock(entry.RefreshExpiresAt)
		}
		s.ui.say("its refresh token was not revoked: a copy of it stays good %s", until)
	}
	if valid(entry) && !slices.Contains(revoked, flow.HintAccessToken) {
		s.ui.say("the token that kubectl was given cannot be called back: it stays good until %s", clock(entry.TokenExpiresAt))
	}
	return nil
}

// revocable is a token that can be ended.
type revocable struct {
	token      cache.Secret
	hint, name string
}

// revoke ends the refresh token, then the access token where that is what was
// kept. A provider that cannot revoke is no error: what can be done is done.
func (s *session) revoke(ctx context.Context, e *cache.Entry) (revoked []string, err error) {
	client, err := s.flow(ctx)
	if err != nil {
		return nil, err
	}
	var refused *flow.ProviderError
	tokens := []revocable{{e.RefreshToken, flow.HintRefreshToken, "refresh token"}}
	if e.Key.AccessToken {
		tokens = append(tokens, revocable{e.Token, flow.HintAccessToken, "access token"})
	}
	for _, t := range tokens {
		if t.token.Empty() {
			continue
		}
		err := client.Revoke(ctx, t.token, t.hint)
		record := s.record(sessionRevoked, e)
		record.OAuth.Revoked = t.hint
		switch {
		case t.hint == flow.HintAccessToken && errors.As(err, &refused) && refused.Code == "unsupported_token_type":
			s.ui.warn("the provider does not revoke access tokens")
			return revoked, s.put(record, err)
		case errors.Is(err, flow.ErrNoRevocation):
			s.ui.warn("%v: what it gave out stays valid until it expires; those who run it can end the session there", err)
			return revoked, nil
		case err != nil:
			_ = s.put(record, err) // the session is kept: there will be another record
			return revoked, err
		}
		revoked = append(revoked, t.hint)
		s.ui.say("the provider revoked the %s", t.name)
		if err := s.put(record, nil); err != nil {
			return revoked, err
		}
	}
	return revoked, nil
}
