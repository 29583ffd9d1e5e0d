// Package cli is the program kubectl-oidc_device: its commands, and the road
// from a request to a token (session.go).
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Main runs the program and gives its exit status. stdout gets the answer and
// nothing else; people are spoken to on stderr.
//
// interruptible gives a context whose cause, once a signal has ended it, is a
// *SignalError. It is called when there is something to interrupt: a cached
// token is answered sooner than a signal handler is set up.
func Main(interruptible func(context.Context) context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(args, stdout, stderr)
	root.SetArgs(args)
	command, err := root.ExecuteContextC(context.WithValue(context.Background(), interruptibleKey{}, interruptible))
	if err == nil {
		return 0
	}
	message, hint, status := explain(err, command)
	u := &ui{out: stderr} // which begins each line with the prefix
	u.say("error: %s", message)
	if hint != "" {
		u.say("hint: %s", hint)
	}
	return status
}

type interruptibleKey struct{}

// interruptible is what Main was given, for the context of a command.
func interruptible(ctx context.Context) context.Context {
	if begin, ok := ctx.Value(interruptibleKey{}).(func(context.Context) context.Context); ok && begin != nil {
		return begin(ctx)
	}
	return ctx
}

// prefix begins every line that the program says to people.
const prefix = "oidc-device: "

func newRoot(args []string, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-oidc_device",
		Short: "Log in to Kubernetes from where there is no browser",
		Long: `Log in to Kubernetes from where there is no browser: over SSH, in a container,
in a CI job. It shows a link and a code; a person approves the login on any
other device; kubectl gets a short-lived token (RFC 8628).`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl oidc-device"},
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			return fromEnvironment(c.Flags(), os.LookupEnv)
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	root.SuggestionsMinimumDistance = 2
	root.CompletionOptions.DisableDefaultCmd = true
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				f.Usage += fmt.Sprintf(" [$%s]", envName(f.Name))
			}
		})
		help(c, args)
	})
	// A run makes only the command that it needs: the flags of all of them
	// would take a tenth of the time that a cached token takes.
	names := []string{"get-token", "login", "logout", "setup", "doctor", "status", "completion", "version"}
	if len(args) > 0 && slices.Contains(names, args[0]) {
		names = args[:1]
	}
	for _, name := range names {
		root.AddCommand(newCommand(name))
	}
	root.InitDefaultHelpCmd() // which would otherwise come later
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Args = helpArguments
		}
	}
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		for _, c := range root.Commands() {
			completeValues(c)
		}
	}
	return root
}

func newCommand(name string) *cobra.Command {
	var c *cobra.Command
	switch name {
	case "get-token":
		c = newGetToken()
	case "login":
		c = newLogin()
	case "logout":
		c = newLogout()
	case "setup":
		c = newSetup()
	case "status":
		c = newStatus()
	case "completion":
		c = newCompletion()
	case "doctor":
		c = newDoctor()
	case "version":
		c = newVersion()
	}
	c.DisableFlagsInUseLine = true
	c.Flags().SortFlags = false
	if c.Args == nil {
		c.Args = noArguments
	}
	return c
}

func unknownCommand(root *cobra.Command, name string) error {
	unknown := &usageError{message: fmt.Sprintf("unknown command %q", name), hint: root.CommandPath() + " -h"}
	if near := root.SuggestionsFor(name); len(near) > 0 {
		unknown.hint = "did you mean: kubectl oidc-device " + near[0]
	}
	return unknown
}

// helpArguments is for "help COMMAND", which by itself takes a command that is
// not there for a call without one.
func helpArguments(c *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return nil
	case 1:
		for _, known := range c.Root().Commands() {
			if known.Name() == args[0] {
				return nil
			}
		}
		return unknownCommand(c.Root(), args[0])
	}
	return &usageError{message: "help takes one argument, a command"}
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		// Not what it was: it may be a secret that lost its flag.
		return &usageError{message: c.Name() + " takes no argument, only flags"}
	}
	return nil
}

// envName is the environment variable of a flag: OIDC_DEVICE_FOO_BAR for
// --oidc-foo-bar and --foo-bar alike.
func envName(flag string) string {
	return "OIDC_DEVICE_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(flag, "oidc-"), "-", "_"))
}

// byVariable marks a flag that its variable has set.
const byVariable = "by variable"

func fromEnvironment(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	// A flag wins over the variable of another that says the same thing, or
	// that names another session.
	rivals := [][]string{{"oidc-client-secret", "oidc-client-secret-file"}, {"authentication-timeout", "authentication-timeout-sec"}}
	if flags.Lookup("from-user") != nil { // setup, where --context and --user do not name a session
		rivals = append(rivals, []string{"oidc-issuer-url", "from-user"}, []string{"oidc-client-id", "from-user"})
	} else {
		rivals = append(rivals, []string{"oidc-issuer-url", "context", "user", "all"})
	}
	var given []string
	flags.Visit(func(f *pflag.Flag) { given = append(given, f.Name) })
	var first error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := lookup(envName(f.Name))
		if !ok || value == "" || f.Changed || f.Name == "help" {
			return
		}
		for _, group := range rivals {
			if slices.Contains(group, f.Name) && slices.ContainsFunc(group, func(name string) bool { return slices.Contains(given, name) }) {
				return
			}
		}
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[byVariable] = []string{envName(f.Name)}
		if err := flags.Set(f.Name, value); err != nil && first == nil {
			// Without the value and the cause, which quotes it: it may be a
			// secret under a wrong name.
			first = &usageError{message: fmt.Sprintf("the value of $%s does not suit --%s", envName(f.Name), f.Name)}
		}
	})
	return first
}
