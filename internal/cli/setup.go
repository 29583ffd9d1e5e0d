package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/oidc-device/kubectl-oidc_device/flow"
	"github.com/oidc-device/kubectl-oidc_device/internal/replace"
)

// setup is what the flags of the command say, beside those of the session.
type setup struct {
	*options
	ui                              *ui
	kubeconfig, user, context, from string
	dryRun, force                   bool
	output                          string
	usernameClaim, groupsClaim      string
	claimPrefix                     string
	rbacGroup, rbacUser             string
}

const (
	programName = "kubectl-oidc_device"
	installHint = "go install github.com/oidc-device/kubectl-oidc_device@latest"
)

func newSetup() *cobra.Command {
	s := &setup{options: &options{}}
	c := &cobra.Command{
		Use:   "setup (--oidc-issuer-url=URL --oidc-client-id=ID | --from-user=NAME) [flags]",
		Short: "Write the kubeconfig user, and print the matching API server configuration",
		Long: `Ask the provider whether it offers the device grant, write a user into the
kubeconfig, and print what the API server needs: an AuthenticationConfiguration
or the older flags, and an RBAC binding. The rest of the kubeconfig stays as it
is. The flags of the session that are given here, or by their variables, become
the arguments of the user; -v is for this command alone.

The file is --kubeconfig; else the one of $KUBECONFIG that holds the user, or the
first of them that is there; else ~/.kube/config.

--from-user reads an entry of kubectl oidc-login (kubelogin get-token). It writes
a new user NAME-device, or with --force NAME itself, or --user; flags given here
win over those of the entry. What could not be taken over is said on stderr.`,
		Example: `  # a user "oidc" for the context "production", and the API server's side on stdout
  kubectl oidc-device setup --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl --context=production

  # only show what would change
  kubectl oidc-device setup --dry-run --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl

  # move the user "oidc" from kubectl oidc-login to this program, where it stands
  kubectl oidc-device setup --from-user=oidc --force`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(c, &s.output); err != nil {
				return err
			}
			s.ui = newUI(c.ErrOrStderr(), s.verbose)
			return s.run(interruptible(c.Context()), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&s.user, "user", "", `name of the user to write (default "oidc")`)
	f.StringVar(&s.context, "context", "", "context to bind to the user; without it, the command that does so is printed")
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "file to change, and the only one to be read")
	f.StringVar(&s.from, "from-user", "", "user of kubectl oidc-login to take over")
	f.BoolVar(&s.dryRun, "dry-run", false, "ask the provider, show on stderr what would change, and write nothing")
	f.BoolVar(&s.force, "force", false, "replace a user of that name that is not this program's")
	f.StringVarP(&s.output, "output", "o", "all", "what to print: all, or only one of "+strings.Join(sections[:4], ", "))
	f.StringVar(&s.usernameClaim, "username-claim", "sub", "claim that names the user to Kubernetes")
	f.StringVar(&s.groupsClaim, "groups-claim", "groups", "claim that lists the user's groups")
	f.StringVar(&s.claimPrefix, "claim-prefix", "oidc:", "what stands before both in Kubernetes; it keeps a provider's group from being called system:masters")
	f.StringVar(&s.rbacGroup, "rbac-group", "", "group, as the provider calls it, for the RBAC binding")
	f.StringVar(&s.rbacUser, "rbac-user", "", "user, as the provider calls it, for the RBAC binding")
	s.addSessionFlags(c)
	s.addTokenFlags(c)
	return c
}

func (s *setup) run(ctx context.Context, out io.Writer) error {
	if s.rbacGroup != "" && s.rbacUser != "" {
		return &usageError{message: "--rbac-group and --rbac-user contradict each other: give one"}
	}
	files, err := s.readKubeconfigs()
	if err != nil {
		return err
	}
	var env []any
	if s.from != "" {
		if env, err = s.takeOver(files); err != nil {
			return err
		}
	}
	if s.user == "" {
		s.user = "oidc"
	}
	if !s.secret.Empty() {
		return &usageError{
			message: "--oidc-client-secret would stand in the kubeconfig, which is passed around",
			hint:    "put the secret into a file of mode 0600 and give --oidc-client-secret-file=FILE (and unset " + envName("oidc-client-secret") + ")",
		}
	}
	if err := s.check(); err != nil {
		return err
	}
	args := s.arguments()
	if err := s.applyPolicies(); err != nil {
		return err
	}
	// What is wrong with the kubeconfig is said before anybody is asked.
	if _, err := s.plan(files, args, env); err != nil {
		return err
	}
	client, err := newSession(s.options, s.ui).flow(ctx)
	if err != nil {
		return err
	}
	if client.Endpoints().DeviceAuthorization == "" {
		return &flow.NoDeviceGrantError{Issuer: s.issuer}
	}
	if err := s.change(ctx, files, args, env); err != nil {
		return err
	}
	return s.print(out)
}

// arguments are those of get-token: the flags that were given and are not what
// they would be anyway, in the order of -h. Files are named from the root:
// kubectl runs anywhere.
func (s *setup) arguments() []string {
	session := (&options{}).sessionFlags()
	args := []string{"get-token"}
	s.given.VisitAll(func(f *pflag.Flag) {
		if session.Lookup(f.Name) == nil || f.Name == "verbose" || !f.Changed || f.Value.String() == f.DefValue {
			return
		}
		values := flagValues(f)
		if slices.Contains([]string{"certificate-authority", "oidc-client-secret-file", "token-cache-dir", "audit-log"}, f.Name) && values[0] != "none" ||
			slices.Contains([]string{"browser-command", "prompt-command"}, f.Name) && filepath.Base(values[0]) != values[0] {
			values[0] = absolute(values[0])
		}
		for _, v := range values {
			if f.Value.Type() == "bool" && v == "true" {
				args = append(args, "--"+f.Name)
			} else {
				args = append(args, "--"+f.Name+"="+v)
			}
		}
	})
	return args
}

// sessionFlags are those that may stand in a kubeconfig and here.
func (o *options) sessionFlags() *pflag.FlagSet {
	c := &cobra.Command{}
	o.addSessionFlags(c)
	o.addTokenFlags(c)
	return c.Flags()
}

// kubeconfigFile is a kubeconfig as it was read; text is nil if there is none.
type kubeconfigFile struct {
	path string
	text []byte
	tree tree
}

func (s *setup) readKubeconfigs() ([]kubeconfigFile, error) {
	paths := []string{s.kubeconfig}
	if s.kubeconfig == "" {
		paths = kubeconfigFiles()
	}
	if len(paths) == 0 {
		return nil, &usageError{message: "there is no home folder, so no kubeconfig is known", hint: "give --kubeconfig=FILE"}
	}
	var files []kubeconfigFile
	for _, path := range paths {
		f, err := readKubeconfig(path)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func readKubeconfig(path string) (kubeconfigFile, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return kubeconfigFile{path: path, tree: tree{}}, nil
	}
	if err != nil {
		return kubeconfigFile{}, &usageError{message: fmt.Sprintf("the kubeconfig cannot be read: %v", err), hint: "ls -l " + shellQuote(path)}
	}
	t, err := parseTree(b)
	if err != nil {
		return kubeconfigFile{}, &usageError{message: fmt.Sprintf("the kubeconfig %s cannot be read: it %v", path, err), hint: "kubectl --kubeconfig=" + shellQuote(path) + " config view"}
	}
	return kubeconfigFile{path: path, text: append([]byte{}, b...), tree: t}, nil
}

// holder finds the first file with an item of this name, and the item; -1 if
// there is none.
func holder(files []kubeconfigFile, list, name string) (int, tree) {
	for i, f := range files {
		if item, err := findNamed(f.tree, list, name); err == nil && item != nil {
			return i, item
		}
	}
	return -1, nil
}

// execOf is the exec entry of an item of users.
func execOf(item tree) *clientcmdapi.ExecConfig {
	var user clientcmdapi.NamedAuthInfo
	b, err := yaml.Marshal(item)
	if err != nil || yaml.Unmarshal(b, &user) != nil {
		return nil
	}
	return user.AuthInfo.Exec
}

// planned is what becomes of the kubeconfigs.
type planned struct {
	edits          map[string]kubeconfigEdit // by file
	file           string                    // of the user
	old            tree                      // item of users; nil: a new one
	entry          tree
	boundIn, bound string // file of the context, and the user that it had
}

func (s *setup) plan(files []kubeconfigFile, args []string, env []any) (*planned, error) {
	p := &planned{edits: map[string]kubeconfigEdit{}}
	i, old := holder(files, "users", s.user)
	p.old = old
	if i < 0 {
		// clientcmd's rule: the first file that is there, else the last.
		if i = slices.IndexFunc(files, func(f kubeconfigFile) bool { return f.text != nil }); i < 0 {
			i = len(files) - 1
		}
	}
	p.file = files[i].path
	p.entry = tree{}
	command := tree{}
	if old != nil {
		own := execOf(old)
		if own != nil {
			_, ok := ourArguments(own)
			if !ok {
				own = nil
			}
		}
		if own == nil && !s.force {
			return nil, &usageError{
				message: fmt.Sprintf("the user %s in %s is not this program's", s.user, p.file),
				hint:    "give another name with --user=NAME, or replace it with --force",
			}
		}
		if user, ok := old["user"].(tree); ok && own != nil {
			p.entry = maps.Clone(user)
			if e, ok := user["exec"].(tree); ok {
				command = maps.Clone(e)
			}
			env, _ = command["env"].([]any)
		}
	}
	maps.Copy(command, tree{
		"apiVersion": "client.authentication.k8s.io/v1", "command": programName, "args": args,
		"interactiveMode": "IfAvailable", "installHint": installHint,
	})
	// The arguments say all that the variables of their flags would.
	said := map[string]bool{}
	(&options{}).sessionFlags().VisitAll(func(f *pflag.Flag) { said[envName(f.Name)] = true })
	env = slices.DeleteFunc(slices.Clone(env), func(v any) bool {
		e, _ := v.(tree)
		name, _ := e["name"].(string)
		return said[name]
	})
	delete(command, "env")
	if len(env) > 0 {
		command["env"] = env
	}
	p.entry["exec"] = command
	p.edits[p.file] = kubeconfigEdit{user: s.user, entry: p.entry}

	if s.context != "" {
		i, item := holder(files, "contexts", s.context)
		if i < 0 {
			missing := &usageError{message: fmt.Sprintf("there is no context %s", s.context)}
			if names := contextNames(files); names != nil {
				missing.hint = "one of: " + strings.Join(names, ", ")
			} else {
				missing.hint = "the kubeconfig knows no cluster yet; first: kubectl config set-cluster NAME --server=URL && kubectl config set-context " + shellQuote(s.context) + " --cluster=NAME"
			}
			return nil, missing
		}
		p.boundIn = files[i].path
		if inner, ok := item["context"].(tree); ok {
			p.bound, _ = inner["user"].(string)
		}
		e := p.edits[p.boundIn]
		e.user, e.context = s.user, s.context
		p.edits[p.boundIn] = e
	}
	return p, nil
}

func contextNames(files []kubeconfigFile) []string {
	var names []string
	for _, f := range files {
		items, _ := f.tree["contexts"].([]any)
		for _, item := range items {
			if m, ok := item.(tree); ok {
				if name, ok := m["name"].(string); ok && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// change writes the kubeconfigs under client-go's lock, or shows what would be
// written.
func (s *setup) change(ctx context.Context, files []kubeconfigFile, args []string, env []any) error {
	p, err := s.plan(files, args, env)
	if err != nil {
		return err
	}
	if !s.dryRun {
		paths := slices.Sorted(maps.Keys(p.edits))
		for _, path := range paths {
			unlock, err := lockKubeconfig(ctx, path)
			if err != nil {
				return err
			}
			defer unlock()
		}
		// Under the lock they may be others than before.
		if files, err = s.readKubeconfigs(); err != nil {
			return err
		}
		if p, err = s.plan(files, args, env); err != nil {
			return err
		}
		if !slices.Equal(paths, slices.Sorted(maps.Keys(p.edits))) {
			return &hintedError{err: errors.New("the kubeconfigs were changed by somebody else at the same moment"), hint: "try again"}
		}
	}
	changed := false
	for _, f := range files {
		edit, ok := p.edits[f.path]
		if !ok {
			continue
		}
		text, exact, err := edit.apply(f.text)
		if err != nil {
			return &usageError{message: fmt.Sprintf("the kubeconfig %s %v", f.path, err), hint: "kubectl --kubeconfig=" + shellQuote(f.path) + " config view"}
		}
		if string(text) == string(f.text) {
			continue
		}
		changed = true
		if !exact {
			s.ui.warn("%s is laid out in an uncommon way and is written anew: its comments and its order are lost", f.path)
		}
		if !s.dryRun {
			if err := writeKubeconfig(f.path, text); err != nil {
				return fmt.Errorf("the kubeconfig %s cannot be written: %w", f.path, err)
			}
		}
	}
	s.report(p, changed)
	return nil
}

func (s *setup) report(p *planned, changed bool) {
	switch {
	case !changed:
		s.ui.say("nothing changes: user %s in %s is as it should be", s.user, p.file)
	case s.dryRun:
		s.ui.say("--- %s\n+++ %s, not written (--dry-run)", p.file, p.file)
		var before []string
		if p.old != nil {
			before = shown(p.old)
		}
		for _, line := range difference(before, shown(tree{"name": s.user, "user": p.entry})) {
			s.ui.whole(line)
		}
		if s.context != "" && p.bound != s.user {
			s.ui.say(" context %s in %s:\n-  user: %s\n+  user: %s", s.context, p.boundIn, p.bound, s.user)
		}
	default:
		s.ui.say("wrote user %s to %s", s.user, p.file)
		if s.context != "" && p.bound != s.user {
			had := "no user"
			if p.bound != "" {
				had = fmt.Sprintf("user %q", p.bound)
			}
			s.ui.say("bound context %s in %s to it; it had %s", s.context, p.boundIn, had)
		}
	}
	if _, err := exec.LookPath(programName); err != nil {
		s.ui.warn("kubectl will not find %s: put it on the PATH", programName)
	}
}

// lockKubeconfig takes the lock that client-go takes while it writes: a file
// beside the kubeconfig.
func lockKubeconfig(ctx context.Context, path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	lock := path + ".lock"
	for end := time.Now().Add(2 * time.Second); ; {
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() { os.Remove(lock) }, nil // gone already: somebody took it for stale
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("the kubeconfig %s cannot be locked: %w", path, err)
		}
		if time.Now().After(end) {
			return nil, &hintedError{
				err:  fmt.Errorf("the kubeconfig %s is locked by another program, or by one that died: %s is there", path, lock),
				hint: "if no kubectl config runs: rm -f " + shellQuote(lock),
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// writeKubeconfig replaces the file that a link leads to, not the link.
func writeKubeconfig(path string, text []byte) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if to, lerr := os.Readlink(path); lerr == nil {
			return fmt.Errorf("it is a link to %s, which is not there", to)
		}
		return replace.File(path, text, nil)
	}
	if err != nil {
		return err
	}
	info, err := os.Stat(target)
	if err != nil {
		return err
	}
	return replace.File(target, text, info)
}
