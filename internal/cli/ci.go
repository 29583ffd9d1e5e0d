package cli

import "github.com/oidc-device/kubectl-oidc_device/flow"

// ciSystem is a system that runs jobs, by its documented variables.
type ciSystem struct {
	name string
	// found are the variable that is set in each of its jobs, and its value;
	// "" is any.
	variable, value string
	// Variables that name the job, and the run that it is part of.
	jobName, run string
}

var ciSystems = []ciSystem{
	{"github-actions", "GITHUB_ACTIONS", "true", "GITHUB_JOB", "GITHUB_RUN_ID"},
	{"gitlab-ci", "GITLAB_CI", "true", "CI_JOB_ID", "CI_PIPELINE_ID"},
	{"azure-pipelines", "TF_BUILD", "True", "SYSTEM_JOBID", "BUILD_BUILDID"},
	{"buildkite", "BUILDKITE", "true", "BUILDKITE_JOB_ID", "BUILDKITE_BUILD_ID"},
	{"circleci", "CIRCLECI", "true", "CIRCLE_JOB", "CIRCLE_WORKFLOW_ID"},
	{"teamcity", "TEAMCITY_VERSION", "", "TEAMCITY_BUILDCONF_NAME", "BUILD_NUMBER"},
	{"jenkins", "JENKINS_URL", "", "JOB_NAME", "BUILD_ID"},
	{"ci", "CI", "", "", ""}, // any other
}

// detectCI gives the zero ciSystem where no job runs.
func detectCI(env func(string) string) ciSystem {
	for _, c := range ciSystems {
		if v := env(c.variable); v != "" && v != "false" && (c.value == "" || v == c.value) {
			return c
		}
	}
	return ciSystem{}
}

// ciJob names a job in the audit log.
type ciJob struct {
	System string `json:"system"`
	Job    string `json:"job,omitempty"`
	Run    string `json:"run,omitempty"`
}

func (c ciSystem) job(env func(string) string) *ciJob {
	if c.name == "" {
		return nil
	}
	j := &ciJob{System: c.name}
	if c.jobName != "" {
		j.Job, j.Run = flow.Clean(env(c.jobName), 200), flow.Clean(env(c.run), 200)
	}
	return j
}
