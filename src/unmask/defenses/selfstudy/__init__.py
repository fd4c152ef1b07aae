"""The defenses of Google's self-study course in evaluating robustness, as modules; cases/selfstudy attacks them."""
