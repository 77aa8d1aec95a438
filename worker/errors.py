"""What can go wrong between the worker and the project.

ProjectError
├── Unreachable        no answer, or one that says "later": trying again may help
│   ├── Later          there was an answer: "later", or one that is not understood, such as a proxy's page
│   └── NoFunctions    nobody serves FUNCTIONS_URL (refused, 404, 503)
├── SignInRefused      the worker's own email or password is wrong
├── LeaseLost          the job is no longer this attempt's; `status` says what became of it
└── Refused            anything else that trying again will not help; `code` says what
    └── ArtifactGone   a file that was to be shared with an earlier job is there no more
"""


class ProjectError(Exception):
    pass


class Unreachable(ProjectError):
    pass


class Later(Unreachable):
    pass


class NoFunctions(Unreachable):
    pass


class SignInRefused(ProjectError):
    pass


class LeaseLost(ProjectError):
    def __init__(self, status: str) -> None:
        super().__init__(f"lease lost; the job is {status}")
        self.status = status


class Refused(ProjectError):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class ArtifactGone(Refused):
    pass
