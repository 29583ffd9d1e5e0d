package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oidc-device/kubectl-oidc_device/cache"
	"github.com/oidc-device/kubectl-oidc_device/flow"
)

func newDoctor() *cobra.Command {
	o := &options{}
	var contextName, userName, server, serverCA, output string
	c := &cobra.Command{
		Use:   "doctor [--context=NAME | --user=NAME | --oidc-issuer-url=URL --oidc-client-id=ID] [flags]",
		Short: "Try each step of the road, and say which is wrong and what to do",
		Long: `Try each step of the road from the kubeconfig to the API server, and say which is
wrong and what to do. Nobody is asked to log in: the code that the provider gives
is shown to nobody, and expires. No token is shown. The exit status is 0 if
nothing is wrong; a warning is not.`,
		Example: `  # the kubeconfig's current context, up to the API server's verdict on the cached token
  kubectl oidc-device doctor

  # a report to attach to a support ticket
  kubectl oidc-device doctor --context=production -o json

  # before there is a kubeconfig
  kubectl oidc-device doctor --oidc-issuer-url=https://idp.example.com --oidc-client-id=kubectl --server=https://api.example.com:6443 --server-certificate-authority=cluster-ca.pem`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkOutput(c, &output); err != nil {
				return err
			}
			d := &doctor{command: c, ctx: interruptible(c.Context())}
			if err := d.choose(o, contextName, userName); err != nil {
				return err
			}
			if server != "" {
				d.server = &apiServer{url: server, caFile: serverCA}
			} else if serverCA != "" {
				return &usageError{message: "--server-certificate-authority is for --server"}
			}
			return d.examine(c.OutOrStdout(), output == "json")
		},
	}
	o.addSessionFlags(c)
	o.addUnusedTokenFlags(c)
	f := c.Flags()
	f.StringVar(&contextName, "context", "", "the session and the API server of this context of the kubeconfig (default the current one)")
	f.StringVar(&userName, "user", "", "the session of this user of the kubeconfig")
	f.StringVar(&server, "server", "", "API server whose verdict on the cached token is wanted; it is shown to no other (default the context's)")
	f.StringVar(&serverCA, "server-certificate-authority", "", "file of the certificates to trust for --server, in place of the system's")
	f.StringVarP(&output, "output", "o", "table", "table, or json, which holds no secret")
	return c
}

// States of a check.
const (
	stateOK      = "ok"
	stateWarning = "warning"
	stateWrong   = "wrong"
	stateSkipped = "skipped"
)

// findings are all that doctor can find, and how bad that is. A code keeps its
// meaning: scripts and support tickets go by it.
var findings = map[string]string{
	"kubeconfig-unreadable": stateWrong,
	"command-missing":       stateWrong,
	"command-other":         stateWarning,
	"double-start":          stateWarning,
	"api-version":           stateWrong,
	"interactive-wrong":     stateWrong,
	"interactive-mode":      stateWarning,
	"arguments":             stateWrong,
	"policy-unreadable":     stateWrong,
	"policy-refuses":        stateWrong,
	"ca-unreadable":         stateWrong,
	"tls-unverified":        stateWarning,
	"secret-unreadable":     stateWrong,

	"proxy-wrong":           stateWrong,
	"dns-failed":            stateWrong,
	"tcp-failed":            stateWrong,
	"proxy-refuses":         stateWrong,
	"tls-failed":            stateWrong,
	"tls-unknown-authority": stateWrong,
	"tls-other-host":        stateWrong,
	"tls-expired":           stateWrong,
	"tls-expires-soon":      stateWarning,

	"discovery-missing":     stateWrong,
	"discovery-failed":      stateWrong,
	"issuer-mismatch":       stateWrong,
	"no-device-grant":       stateWrong,
	"device-grant-unlisted": stateWarning,
	"no-pkce":               stateWarning,
	"pkce-off":              stateWarning,
	"no-refresh-grant":      stateWarning,
	"no-revocation":         stateWarning,
	"algorithms":            stateWrong,
	"keys-failed":           stateWrong,
	"no-keys":               stateWrong,
	"scope-unlisted":        stateWarning,
	"client-unknown":        stateWrong,
	"client-not-allowed":    stateWrong,
	"scope-refused":         stateWrong,
	"request-refused":       stateWrong,
	"device-refused":        stateWrong,
	"device-failed":         stateWrong,
	"clock":                 stateWarning,

	"cache-untrusted":   stateWrong,
	"cache-unwritable":  stateWrong,
	"session-untrusted": stateWrong,
	"session-corrupt":   stateWarning,
	"corrupt-leftover":  stateWarning,
	"lock-held":         stateWarning,
	"lock-failed":       stateWarning,
	"keyring-unusable":  stateWrong,
	"audit-unwritable":  stateWarning,
	"audit-required":    stateWrong,

	"token-opaque":      stateWarning,
	"token-expired":     stateWarning,
	"token-dead":        stateWrong,
	"token-issuer":      stateWrong,
	"token-audience":    stateWrong,
	"token-no-audience": stateWarning,
	"token-key":         stateWarning,
	"email-unverified":  stateWarning,
	"groups-missing":    stateWarning,
	"groups-overage":    stateWarning,
	"groups-many":       stateWarning,
	"token-large":       stateWarning,

	"api-config":       stateWrong,
	"api-tls":          stateWrong,
	"api-unreachable":  stateWrong,
	"api-answer":       stateWrong,
	"api-unauthorized": stateWrong,
	"api-forbidden":    stateWrong,
}

// checkup is one step. It is skipped if a step that it needs was wrong, or was
// skipped for such a reason itself.
type checkup struct {
	name, needs string
	run         func(*doctor, context.Context) result
}

func checkups() []checkup {
	return []checkup{
		{"kubeconfig", "", (*doctor).checkKubeconfig},
		{"command", "kubeconfig", (*doctor).checkCommand},
		{"start", "command", (*doctor).checkStart},
		{"apiVersion", "kubeconfig", (*doctor).checkAPIVersion},
		{"interactiveMode", "kubeconfig", (*doctor).checkInteractiveMode},
		{"arguments", "", (*doctor).checkArguments},
		{"policy", "arguments", (*doctor).checkPolicy},
		{"trust", "arguments", (*doctor).checkTrust},
		{"secret", "arguments", (*doctor).checkSecret},
		{"proxy", "policy trust", (*doctor).checkProxy},
		{"dns", "proxy", (*doctor).checkDNS},
		{"tcp", "dns", (*doctor).checkTCP},
		{"tunnel", "tcp", (*doctor).checkTunnel},
		{"tls", "tunnel", (*doctor).checkTLS},
		{"discovery", "tls", (*doctor).checkDiscovery},
		{"device-grant", "discovery", (*doctor).checkDeviceGrant},
		{"pkce", "discovery", (*doctor).checkPKCE},
		{"refresh", "discovery", (*doctor).checkRefresh},
		{"revocation", "discovery", (*doctor).checkRevocation},
		{"algorithms", "discovery", (*doctor).checkAlgorithms},
		{"keys", "discovery", (*doctor).checkKeys},
		{"scopes", "discovery", (*doctor).checkScopes},
		{"client", "device-grant secret", (*doctor).checkClient},
		{"clock", "discovery", (*doctor).checkClock},
		{"cache", "arguments", (*doctor).checkCache},
		{"sessions", "cache", (*doctor).checkSessions},
		{"lock", "cache", (*doctor).checkLock},
		{"keyring", "arguments", (*doctor).checkKeyring},
		{"audit-log", "arguments", (*doctor).checkAuditLog},
		{"token", "cache", (*doctor).checkToken},
		{"token-issuer", "token", (*doctor).checkTokenIssuer},
		{"token-audience", "token", (*doctor).checkTokenAudience},
		{"token-key", "token keys", (*doctor).checkTokenKey},
		{"token-user", "token", (*doctor).checkTokenUser},
		{"token-groups", "token", (*doctor).checkTokenGroups},
		{"token-size", "token", (*doctor).checkTokenSize},
		{"api-server", "token", (*doctor).checkAPIServer},
	}
}

// doctor is one examination. A check leaves here what later ones need.
type doctor struct {
	*session // without a usable entry: nil
	command  *cobra.Command
	ctx      context.Context

	configErr   error
	entry       *kubeconfigUser // nil: none is known
	contextName string
	server      *apiServer // nil: none is known

	config flow.Config
	target *url.URL // of the provider
	proxy  *url.URL
	conn   net.Conn
	client *flow.Client
	asked  bool // the client was tried
	keyIDs []string
	cached *cache.Entry
	keyID  string // of the cached token
	claims map[string]any
}

// result is what a check says. blocked: it could not be tried, so that what
// needs it cannot be either.
type result struct {
	state, code, message, fix string
	blocked                   bool
}

func fine(format string, args ...any) result {
	return result{state: stateOK, message: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) result {
	return result{state: stateSkipped, message: fmt.Sprintf(format, args...)}
}

func blocked(format string, args ...any) result {
	return result{state: stateSkipped, message: fmt.Sprintf(format, args...), blocked: true}
}

// found is a finding. Each line of the fix is one thing to try.
func found(code, fix, format string, args ...any) result {
	return result{state: findings[code], code: code, fix: fix, message: fmt.Sprintf(format, args...)}
}

// blame makes a finding of an error, with the words that it would have anywhere
// else in the program.
func (d *doctor) blame(code string, err error) result {
	message, hint, _ := explain(err, d.command)
	return found(code, hint, "%s", message)
}

// diagnosis is the form of -o json. A field may be added to it; none is removed
// or changes its meaning without a new version.
type diagnosis struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Time       time.Time `json:"time"`
	Version    string    `json:"version"`
	Platform   string    `json:"platform"`
	Context    string    `json:"context,omitempty"`
	User       string    `json:"user,omitempty"` // of the kubeconfig
	Issuer     string    `json:"issuer,omitempty"`
	ClientID   string    `json:"clientID,omitempty"`
	SessionID  string    `json:"sessionID,omitempty"`
	FirstWrong string    `json:"firstWrong,omitempty"` // name of a check
	Checks     []checked `json:"checks"`
}

// checked is a check with its result.
type checked struct {
	Name         string `json:"name"`
	State        string `json:"state"`          // ok, warning, wrong, skipped
	Code         string `json:"code,omitempty"` // of the finding
	Message      string `json:"message"`
	Fix          string `json:"fix,omitempty"` // a line for each thing to try
	Milliseconds int64  `json:"milliseconds"`
}

// choose finds out whose session it is about.
func (d *doctor) choose(o *options, contextName, userName string) error {
	var configs *kubeconfigs
	configs, d.configErr = readKubeconfigs(kubeconfigFiles())
	user := userName
	if o.issuer == "" {
		beside := "context"
		if contextName == "" && userName != "" {
			beside = "user"
		}
		if err := o.only(beside, append(reach, "context", "user", "server", "server-certificate-authority", "output")...); err != nil {
			return err
		}
	}
	switch {
	case (contextName != "" || userName != "") && o.issuer != "", contextName != "" && userName != "":
		return &usageError{message: "--context, --user and --oidc-issuer-url contradict each other: give one"}
	case o.issuer != "":
		if err := o.check(); err != nil {
			return err
		}
		d.session = newSession(o, newUI(d.command.ErrOrStderr(), o.verbose))
		for i, u := range configs.users {
			if u.err == nil && u.options.key().ID() == d.id {
				d.entry = &configs.users[i]
				break
			}
		}
		return nil
	case userName != "":
		if of := configs.contextsOf(userName); len(of) == 1 {
			contextName = of[0]
		}
	default:
		if contextName == "" {
			contextName = configs.current
		}
		user = configs.contexts[contextName].AuthInfo
	}
	for i, u := range configs.users {
		if u.name == user {
			d.entry = &configs.users[i]
		}
	}
	if d.entry == nil {
		what := "the current context does not run this program"
		if userName != "" || contextName != "" {
			what = fmt.Sprintf("no entry of this program in the kubeconfig for user %q of context %q", user, contextName)
		}
		if d.configErr != nil {
			return &usageError{message: oneLine(d.configErr), hint: "kubectl config view"}
		}
		if _, ok := configs.contexts[contextName]; contextName != "" && !ok {
			what = fmt.Sprintf("there is no context %s in the kubeconfig", contextName)
		}
		return &usageError{message: what, hint: "give --context=NAME (kubectl config get-contexts), or --oidc-issuer-url and --oidc-client-id"}
	}
	d.contextName = contextName
	if c, ok := configs.contexts[contextName]; ok {
		d.server = serverOf(configs, c.Cluster)
	}
	// The checks shall see what the plugin would: proxies, policies.
	for _, e := range d.entry.exec.Env {
		if err := os.Setenv(e.Name, e.Value); err != nil {
			return &usageError{message: fmt.Sprintf("the kubeconfig's variable %q cannot be set", e.Name)}
		}
	}
	if d.entry.err == nil {
		from := *d.entry.options
		from.overlay(o)
		d.session = newSession(&from, newUI(d.command.ErrOrStderr(), o.verbose))
	}
	return nil
}

// longest bounds a check.
const longest = 20 * time.Second

// examine runs the checks and tells of them. The error is about the first that
// is wrong.
func (d *doctor) examine(out io.Writer, asJSON bool) error {
	report := &diagnosis{
		APIVersion: inventoryVersion, Kind: "Diagnosis", Time: time.Now().UTC(),
		Version: version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Context: d.contextName,
	}
	if d.entry != nil {
		report.User = d.entry.name
	}
	if d.session != nil {
		report.Issuer, report.ClientID, report.SessionID = d.issuer, d.clientID, d.id
	}
	defer func() {
		if d.conn != nil {
			d.conn.Close() // it was a test
		}
	}()
	standing := map[string]string{} // in the way of what needs a check
	var first *checked
	for _, c := range checkups() {
		var r result
		begin := time.Now()
		if i := slices.IndexFunc(strings.Fields(c.needs), func(n string) bool { return standing[n] != "" }); i >= 0 {
			standing[c.name] = standing[strings.Fields(c.needs)[i]]
			r = blocked("%s", standing[c.name])
		} else {
			ctx, cancel := context.WithTimeout(d.ctx, longest)
			r = c.run(d, ctx)
			cancel()
		}
		if d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		switch {
		case r.state == stateWrong:
			standing[c.name] = c.name + " is wrong"
		case r.blocked && standing[c.name] == "":
			standing[c.name] = c.name + " was skipped"
		}
		report.Checks = append(report.Checks, checked{
			Name: c.name, State: r.state, Code: r.code,
			Message: flow.Clean(r.message, 1000), Fix: cleanLines(r.fix), Milliseconds: time.Since(begin).Milliseconds(),
		})
		last := &report.Checks[len(report.Checks)-1]
		if first == nil && r.state == stateWrong {
			copied := *last
			first, report.FirstWrong = &copied, c.name
		}
		if !asJSON {
			if err := last.print(out); err != nil {
				return err
			}
		}
	}
	if asJSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(report); err != nil {
			return err
		}
	}
	if first == nil {
		return nil
	}
	fix, _, _ := strings.Cut(first.Fix, "\n")
	return &hintedError{err: fmt.Errorf("the first that is wrong is %s: %s", first.Name, first.Message), hint: fix}
}

// cleanLines cleans each line: a fix may quote a kubeconfig or a provider.
func cleanLines(s string) string {
	var lines []string
	for line := range strings.SplitSeq(s, "\n") {
		lines = append(lines, flow.Clean(line, 4000))
	}
	return strings.Join(lines, "\n")
}

func (c *checked) print(out io.Writer) error {
	took := "-"
	if c.State != stateSkipped {
		took = fmt.Sprintf("%dms", c.Milliseconds)
	}
	line := fmt.Sprintf("%-8s %-15s %6s  %s\n", c.State, c.Name, took, c.Message)
	for fix := range strings.SplitSeq(c.Fix, "\n") {
		if fix != "" {
			line += "             fix: " + fix + "\n"
		}
	}
	_, err := io.WriteString(out, line)
	return err
}

func (d *doctor) checkKubeconfig(context.Context) result {
	switch {
	case d.configErr != nil:
		return found("kubeconfig-unreadable", "kubectl config view", "%v", d.configErr)
	case d.entry == nil:
		return skipped("no kubeconfig entry has these flags")
	case d.contextName != "":
		return fine("user %s of context %s in %s", d.entry.name, d.contextName, d.entry.file)
	}
	return fine("user %s in %s", d.entry.name, d.entry.file)
}

// setUser is the command that changes the kubeconfig's entry.
func (d *doctor) setUser(flag string) string {
	return "kubectl config set-credentials " + shellQuote(d.entry.name) + " " + flag
}

const noEntry = "there is no kubeconfig entry"

func (d *doctor) checkCommand(context.Context) result {
	if d.entry == nil {
		return skipped(noEntry)
	}
	command := d.entry.exec.Command
	if strings.ContainsRune(command, filepath.Separator) && !filepath.IsAbs(command) {
		command = filepath.Join(filepath.Dir(d.entry.file), command)
	}
	path, err := exec.LookPath(command)
	if err == nil && d.throughKubectl() {
		path, err = exec.LookPath(programName)
		command = programName
	}
	own, ownErr := os.Executable()
	if err != nil {
		fix := installHint + ", with its folder on the PATH of kubectl"
		if ownErr == nil {
			// Not kubectl config set-credentials: with --exec-command alone it
			// deletes the arguments.
			fix = "put its folder on the PATH, or in " + d.entry.file + ": command: " + own + "\n" + fix
		}
		return found("command-missing", fix, "%s is not there, or is no program (PATH=%s)", command, os.Getenv("PATH"))
	}
	if ownErr == nil {
		a, aerr := os.Stat(own)
		b, berr := os.Stat(path)
		if aerr == nil && berr == nil && !os.SameFile(a, b) {
			return found("command-other", path+" version", "kubectl runs %s, which is not the program that says this (%s, version %s)", path, own, version())
		}
	}
	return fine("%s", path)
}

func (d *doctor) throughKubectl() bool {
	return strings.TrimSuffix(filepath.Base(d.entry.exec.Command), ".exe") == "kubectl"
}

func (d *doctor) checkStart(context.Context) result {
	if d.entry == nil {
		return skipped(noEntry)
	}
	if d.throughKubectl() {
		return found("double-start", "in "+d.entry.file+": command: "+programName+", and args that begin with get-token",
			"kubectl runs kubectl, which runs this program: each call costs two starts more than it needs")
	}
	return fine("kubectl runs this program itself")
}

func (d *doctor) checkAPIVersion(context.Context) result {
	if d.entry == nil {
		return skipped(noEntry)
	}
	switch v := d.entry.exec.APIVersion; v {
	case "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1":
		return fine("%s", v)
	default:
		return found("api-version", d.setUser("--exec-api-version=client.authentication.k8s.io/v1"), "apiVersion is %q: kubectl and this program know client.authentication.k8s.io/v1 and v1beta1", v)
	}
}

func (d *doctor) checkInteractiveMode(context.Context) result {
	if d.entry == nil {
		return skipped(noEntry)
	}
	fix := d.setUser("--exec-interactive-mode=IfAvailable")
	switch mode := d.entry.exec.InteractiveMode; {
	case mode == "IfAvailable":
		return fine("%s", mode)
	case mode == "" && strings.HasSuffix(d.entry.exec.APIVersion, "/v1beta1"):
		return fine("not set, which means IfAvailable in v1beta1")
	case mode == "":
		return found("interactive-wrong", fix, "interactiveMode is not set: kubectl refuses the entry")
	case mode == "Always":
		return found("interactive-mode", fix, "interactiveMode is Always: without a terminal, as in a job, kubectl does not run the plugin")
	case mode == "Never":
		return found("interactive-mode", fix, "interactiveMode is Never: some clients then keep the link and the code from the person")
	default:
		return found("interactive-wrong", fix, "interactiveMode is %q, which kubectl does not know", mode)
	}
}

func (d *doctor) checkArguments(context.Context) result {
	if d.session == nil {
		return found("arguments", "mend args and env of user "+d.entry.name+" in "+d.entry.file+"; the flags: kubectl oidc-device get-token -h",
			"the entry's arguments make no sense: %v", d.entry.err)
	}
	return fine("client %s at %s", d.clientID, d.issuer)
}

func (d *doctor) checkPolicy(context.Context) result {
	err := d.applyPolicies()
	var refused *policyError
	switch {
	case errors.As(err, &refused):
		return d.blame("policy-refuses", err)
	case err != nil:
		return d.blame("policy-unreadable", err)
	}
	if n := len(d.policies) - 1; n > 0 { // the last are the flags
		return fine("%d read, none forbids this session", n)
	}
	return fine("there is none")
}

func (d *doctor) checkTrust(context.Context) (r result) {
	var err error
	if d.config, err = d.flowConfig(); err != nil {
		r = d.blame("ca-unreadable", err)
		r.fix = "ls -l " + shellQuote(d.caFile) + "\nif it is in DER form: openssl x509 -inform der -in " + shellQuote(d.caFile) + " -out " + shellQuote(d.caFile+".pem")
		if d.caFile == "" {
			r.fix = "--certificate-authority=FILE in place of --certificate-authority-data"
		}
		return r
	}
	d.config.Log = d.ui.detail
	switch {
	case d.insecureSkipTLSVerify:
		return found("tls-unverified", "--certificate-authority=FILE in place of --insecure-skip-tls-verify", "the provider's certificate is not verified: whoever is in between can take the tokens")
	case d.config.Trust != "":
		return fine("the system's certificates, and the given ones")
	}
	return fine("the system's certificates")
}

func (d *doctor) checkSecret(context.Context) result {
	if d.config.ClientSecret == nil && d.secretFile == "" && d.secret.Empty() {
		return skipped("a public client has none")
	}
	if _, err := d.clientSecret(); err != nil {
		r := d.blame("secret-unreadable", err)
		r.fix = "ls -l " + shellQuote(d.secretFile)
		return r
	}
	return fine("there is one")
}

// checkDiscovery keeps no document and uses none that was kept.
func (d *doctor) checkDiscovery(ctx context.Context) result {
	client, err := flow.New(ctx, d.config)
	var missing *flow.NoDiscoveryError
	var issuer *flow.IssuerError
	var answer *flow.AnswerError
	at := strings.TrimSuffix(d.issuer, "/") + "/.well-known/openid-configuration"
	switch {
	case errors.As(err, &missing):
		return d.blame("discovery-missing", err)
	case errors.As(err, &issuer):
		return d.blame("issuer-mismatch", err)
	case errors.As(err, &answer):
		return found("discovery-failed", "look at what answers, it may be a proxy or a guest network: curl -i "+shellQuote(at), "%v", err)
	case err != nil:
		return d.blame("discovery-failed", err)
	}
	d.client = client
	if client.Provider() == nil {
		return skipped("the endpoints are given: none is needed")
	}
	return fine("%s calls itself that", d.issuer)
}

func (d *doctor) checkDeviceGrant(context.Context) result {
	endpoint := d.client.Endpoints().DeviceAuthorization
	if endpoint == "" {
		return d.blame("no-device-grant", &flow.NoDeviceGrantError{Issuer: d.issuer})
	}
	if p := d.client.Provider(); p != nil && p.GrantTypes != nil && !slices.Contains(p.GrantTypes, flow.DeviceGrant) {
		return found("device-grant-unlisted", "if the check of the client is not ok: switch the device authorization grant on at the provider", "the endpoint is there, but the grant is not among grant_types_supported")
	}
	return fine("%s", endpoint)
}

func (d *doctor) checkPKCE(context.Context) result {
	p := d.client.Provider()
	offered := p != nil && slices.Contains(p.ChallengeMethods, flow.S256)
	switch {
	case d.pkce == flow.No && offered:
		return found("pkce-off", "--oidc-pkce-method=auto", "the provider offers S256, and --oidc-pkce-method=no declines it")
	case d.pkce == flow.No:
		return fine("off, as --oidc-pkce-method says")
	case d.pkce == flow.S256:
		return fine("S256, as --oidc-pkce-method says")
	case p == nil:
		return skipped("without discovery --oidc-pkce-method=auto means none")
	case offered:
		return fine("S256")
	}
	return found("no-pkce", "if the provider takes it without saying so: --oidc-pkce-method=S256", "the provider does not list S256, so that it is not used")
}

const noDocument = "there is no discovery document that tells"

func (d *doctor) checkRefresh(context.Context) result {
	p := d.client.Provider()
	switch {
	case d.noRefreshToken:
		return fine("none is wanted, by --no-refresh-token or a policy")
	case p == nil || p.GrantTypes == nil:
		return skipped(noDocument)
	case !slices.Contains(p.GrantTypes, "refresh_token"):
		return found("no-refresh-grant", "switch refresh tokens on at the provider, for this client too", "refresh_token is not among grant_types_supported: each token's end may be a new login")
	case slices.Contains(d.client.Scopes(), "offline_access"):
		return fine("offered; offline_access is asked for")
	}
	return fine("offered; offline_access is not asked for")
}

func (d *doctor) checkRevocation(context.Context) result {
	if endpoint := d.client.Endpoints().Revocation; endpoint != "" {
		return fine("%s", endpoint)
	}
	return found("no-revocation", "if it has one that discovery does not name: --oidc-revocation-endpoint=URL; else sessions are ended at the provider", "the provider names no revocation endpoint: logout deletes, but what was given out stays valid")
}

func (d *doctor) checkAlgorithms(context.Context) result {
	p := d.client.Provider()
	if p == nil || p.Algorithms == nil || d.useAccessToken {
		return skipped("nothing tells how the token will be signed")
	}
	if len(p.Accepted()) == 0 {
		return found("algorithms", "have the provider sign ID tokens with RS256 or ES256", "the provider signs with %s, of which kube-apiserver takes none", strings.Join(p.Algorithms, ", "))
	}
	return fine("kube-apiserver takes %s", strings.Join(p.Accepted(), ", "))
}

func (d *doctor) checkKeys(ctx context.Context) result {
	var err error
	if d.keyIDs, err = d.client.KeyIDs(ctx); err != nil {
		return d.blame("keys-failed", err)
	}
	at := d.client.Endpoints().JWKS
	switch {
	case at == "" && d.useAccessToken:
		return skipped("no --oidc-jwks-uri: Kubernetes alone verifies the access token")
	case len(d.keyIDs) == 0:
		return found("no-keys", "if the provider has them elsewhere: --oidc-jwks-uri=URL", "the provider publishes no key that could verify a token (jwks_uri %q)", at)
	}
	return fine("%d at %s", len(d.keyIDs), at)
}

func (d *doctor) checkScopes(context.Context) result {
	p := d.client.Provider()
	if p == nil || p.Scopes == nil {
		return skipped(noDocument)
	}
	var unlisted []string
	for _, s := range d.client.Scopes() {
		if !slices.Contains(p.Scopes, s) {
			unlisted = append(unlisted, s)
		}
	}
	if len(unlisted) > 0 {
		return found("scope-unlisted", "check --oidc-extra-scope and --oidc-offline-access; the provider lists: "+strings.Join(p.Scopes, " "), "asked for, but not listed by the provider: %s", strings.Join(unlisted, " "))
	}
	return fine("%s", strings.Join(d.client.Scopes(), " "))
}

// checkClient asks for a code, which is shown to nobody and expires.
func (d *doctor) checkClient(ctx context.Context) result {
	d.asked = true
	auth, err := d.client.Authorize(ctx)
	var refused *flow.ProviderError
	switch {
	case err == nil:
		return fine("%s got a code, which is shown to nobody and ends in %s", d.clientID, time.Until(auth.ExpiresAt).Round(time.Second))
	case !errors.As(err, &refused) || flow.Temporary(err):
		return d.blame("device-failed", err)
	}
	code := map[string]string{
		"invalid_client": "client-unknown", "unauthorized_client": "client-not-allowed", "unsupported_grant_type": "client-not-allowed",
		"invalid_scope": "scope-refused", "invalid_request": "request-refused",
	}[refused.Code]
	if code == "" {
		code = "device-refused"
	}
	return d.blame(code, err)
}

func (d *doctor) checkClock(context.Context) result {
	if !d.asked {
		return skipped("the client was not tried")
	}
	if difference := d.client.ClockDifference(); difference != 0 {
		return found("clock", "set the clock: timedatectl set-ntp true; after a WSL machine has slept: hwclock -s", "%s; logins allow for it, but TLS and kubectl may not", clockHint(difference))
	}
	return fine("as far as its answer tells, it is the provider's")
}

func (d *doctor) checkCache(context.Context) result {
	if d.disk == nil {
		return blocked("--token-cache-storage=%s keeps nothing here", d.storage)
	}
	unwritable := func(err error) result {
		return found("cache-unwritable", "ls -ld "+shellQuote(d.cacheDir)+"\nor give a folder of yours: --token-cache-dir=DIR", "sessions cannot be kept in %s: %v", d.cacheDir, err)
	}
	if err := os.MkdirAll(d.cacheDir, 0o700); err != nil {
		return unwritable(err)
	}
	_, err := d.disk.Load(d.id)
	var untrusted *cache.UntrustedError
	if errors.As(err, &untrusted) && untrusted.Path == d.cacheDir {
		return found("cache-untrusted", untrusted.Mend, "%v", err)
	}
	// Access rights alone do not tell: of a full or a read-only file system, say.
	probe, err := writeProbe(d.cacheDir, d.id)
	if err == nil {
		err = os.Remove(probe)
	}
	if err != nil {
		return unwritable(err)
	}
	return fine("%s", d.cacheDir)
}

// writeProbe writes a file of no worth. Its name is that of a session half
// written, so that the cache sweeps away what a killed doctor leaves.
func writeProbe(dir, id string) (path string, err error) {
	probe, err := os.CreateTemp(dir, "."+id+".json*")
	if err != nil {
		return "", err
	}
	_, err = probe.WriteString("this file can be deleted\n")
	if err = errors.Join(err, probe.Close()); err != nil {
		return "", errors.Join(err, os.Remove(probe.Name()))
	}
	return probe.Name(), nil
}

func (d *doctor) checkSessions(context.Context) result {
	files, err := os.ReadDir(d.cacheDir)
	ids, lerr := d.disk.List()
	if err = errors.Join(err, lerr); err != nil {
		return found("cache-unwritable", "ls -ld "+shellQuote(d.cacheDir), "the sessions cannot be listed: %v", err)
	}
	var corrupt error
	for _, id := range ids {
		_, err := d.disk.Load(id)
		if errors.Is(err, cache.ErrNotFound) {
			_, _, err = cache.NewKeyring(d.disk).Describe(id)
		}
		var untrusted *cache.UntrustedError
		if errors.As(err, &untrusted) {
			return found("session-untrusted", "if nobody else wrote it: "+untrusted.Mend, "%v", err)
		}
		if errors.As(err, new(*cache.CorruptError)) {
			corrupt = err
		}
	}
	if corrupt != nil {
		return found("session-corrupt", "it will be set aside, and a login is needed: "+d.commandLine("login"), "%v", corrupt)
	}
	for _, f := range files {
		if strings.Contains(f.Name(), ".corrupt-") {
			path := filepath.Join(d.cacheDir, f.Name())
			return found("corrupt-leftover", "rm "+shellQuote(path), "%s is a session that did not parse and was set aside; it may hold tokens", path)
		}
	}
	return fine("%d in the folder", len(ids))
}

func (d *doctor) checkLock(ctx context.Context) result {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var holder *cache.Notes
	unlock, err := d.disk.Lock(ctx, d.id, func(n cache.Notes) error { holder = &n; return nil })
	switch {
	case err == nil:
		unlock()
		return fine("taken and given back")
	case holder != nil && errors.Is(err, context.DeadlineExceeded):
		why := "which renews the session"
		if holder.Prompt != nil {
			why = "which waits for a person's approval"
		}
		return found("lock-held", fmt.Sprintf("wait for it, or end it: kill %d", holder.Holder.PID), "process %d has had the session's lock since %s, %s", holder.Holder.PID, clock(holder.Holder.Since), why)
	}
	fix := "--token-cache-dir=DIR on a file system with locks (not every NFS has them)"
	var untrusted *cache.UntrustedError
	if errors.As(err, &untrusted) {
		fix = untrusted.Mend
	}
	return found("lock-failed", fix, "no lock can be had (%v): two processes may ask the person at once", err)
}

func (d *doctor) checkKeyring(context.Context) result {
	if d.storage != "keyring" {
		return skipped("--token-cache-storage is not keyring")
	}
	if err := cache.NewKeyring(d.disk).Check(); err != nil {
		var unusable *cache.KeyringError
		fix := ""
		if errors.As(err, &unusable) {
			fix = keyringHint(unusable.Reason)
		}
		return found("keyring-unusable", fix, "%v", err)
	}
	return fine("there, and unlocked")
}

func (d *doctor) checkAuditLog(context.Context) result {
	if d.trail.path == "" && !d.auditRequired {
		return skipped("--audit-log=none")
	}
	code := "audit-unwritable"
	if d.auditRequired {
		code = "audit-required"
	}
	err := errors.New("--audit-log=none")
	if d.trail.path != "" {
		f, oerr := d.trail.open()
		if err = oerr; oerr == nil {
			f.Close() // nothing was written
		}
	}
	if err != nil {
		return found(code, "give another file: --audit-log=FILE", "the audit log cannot be written: %v", err)
	}
	return fine("%s", d.trail.path)
}
